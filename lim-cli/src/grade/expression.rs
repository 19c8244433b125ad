//! Arithmetic as a polynomial over what is not a number: `\frac{\sqrt{3}}{2}+x` is ½·√3 + x. Two expressions with the same
//! polynomial are equal; with different ones they may be equal still, unless both are numbers.

use std::collections::BTreeMap;

use super::rational::Rational;

/// Powers of variables, constants and roots.
type Monomial = BTreeMap<String, i32>;

/// A sum of monomials with factors that are not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expression(BTreeMap<Monomial, Rational>);

/// Beyond these an expression is no answer, only work.
const MAX_POWER: i32 = 64;
const MAX_TERMS: usize = 64;
const MAX_DEPTH: usize = 32;

/// Commands that stand for a number without a value here.
const SYMBOLS: [&str; 16] = [
    "pi", "infty", "alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "phi", "omega", "sigma",
    "rho", "tau", "epsilon", "varphi",
];

impl Expression {
    /// Reads LaTeX without spaces, as [`super::latex::normalise`] leaves it. `None` where something is not arithmetic.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let chars: Vec<char> = text.chars().collect();
        let mut parser = Parser { chars: &chars, at: 0, depth: 0 };
        let sum = parser.sum()?;
        (parser.at == chars.len()).then_some(sum)
    }

    /// Its value, if it is a number.
    pub(super) fn number(&self) -> Option<Rational> {
        match self.0.len() {
            0 => Some(Rational::ZERO),
            1 => self.0.get(&Monomial::new()).copied(),
            _ => None,
        }
    }

    fn of(number: Rational) -> Self {
        Expression::term(Monomial::new(), number)
    }

    fn term(monomial: Monomial, factor: Rational) -> Self {
        let terms = if factor.is_zero() { None } else { Some((monomial, factor)) };
        Expression(terms.into_iter().collect())
    }

    /// Itself, as part of a name.
    fn name(&self) -> String {
        let power = |(name, power): (&String, &i32)| format!("*{name}^{power}");
        let term = |(monomial, factor): (&Monomial, &Rational)| {
            format!("{factor}{}", monomial.iter().map(power).collect::<String>())
        };
        format!("({})", self.0.iter().map(term).collect::<Vec<_>>().join("+"))
    }

    fn atom(name: String) -> Self {
        Expression::term(Monomial::from([(name, 1)]), Rational::ONE)
    }

    fn plus(mut self, other: Self) -> Option<Self> {
        for (monomial, factor) in other.0 {
            let sum = self.0.remove(&monomial).unwrap_or(Rational::ZERO).plus(factor)?;
            if !sum.is_zero() {
                self.0.insert(monomial, sum);
            }
        }
        (self.0.len() <= MAX_TERMS).then_some(self)
    }

    fn negated(self) -> Option<Self> {
        self.times(&Expression::of(Rational::whole(-1)))
    }

    fn times(&self, other: &Self) -> Option<Self> {
        let mut product = Expression::default();
        for (a, x) in &self.0 {
            for (b, y) in &other.0 {
                let (monomial, factor) = joined(a, b)?;
                product = product.plus(Expression::term(monomial, x.times(*y)?.times(factor)?))?;
            }
        }
        Some(product)
    }

    /// Only a single term has a reciprocal here.
    fn over(&self, other: &Self) -> Option<Self> {
        let (monomial, factor) = other.0.iter().next().filter(|_| other.0.len() == 1)?;
        let mut inverse = Expression::of(Rational::ONE.over(*factor)?);
        for (name, power) in monomial {
            // 1/√n = √n/n, so that roots stay above the line.
            let one = match root_of(name) {
                Some(n) => Expression::term(Monomial::from([(name.clone(), 1)]), Rational::ONE.over(n)?),
                None => Expression::term(Monomial::from([(name.clone(), -power)]), Rational::ONE),
            };
            inverse = inverse.times(&one)?;
        }
        self.times(&inverse)
    }

    fn power(&self, exponent: &Self) -> Option<Self> {
        let number = exponent.number()?;
        if number == Rational::new(1, 2)? {
            return self.root();
        }
        let exponent = i32::try_from(number.as_whole()?).ok().filter(|n| n.abs() <= MAX_POWER)?;
        let one = Expression::of(Rational::ONE);
        let power = (0..exponent.abs()).try_fold(one.clone(), |power, _| power.times(self))?;
        if exponent < 0 { one.over(&power) } else { Some(power) }
    }

    /// √(a/b) as a rational times the root of a whole number that no square divides; of anything else, a root of its own.
    fn root(&self) -> Option<Self> {
        let Some(number) = self.number() else {
            return Some(Expression::atom(format!("root of {}", self.name())));
        };
        if let Some(root) = number.root() {
            return Some(Expression::of(root));
        }
        let (outside, inside) = number.square_part()?;
        Some(Expression::term(Monomial::from([(format!("root {inside}"), 1)]), outside))
    }
}

/// The whole number that a symbol is the root of.
fn root_of(name: &str) -> Option<Rational> {
    name.strip_prefix("root ").and_then(Rational::decimal)
}

/// The product of two monomials, with what their roots give: √2·√6 = 2√3.
fn joined(a: &Monomial, b: &Monomial) -> Option<(Monomial, Rational)> {
    let (mut product, mut factor, mut under) = (Monomial::new(), Rational::ONE, Rational::ONE);
    for (name, power) in a.iter().chain(b) {
        if let Some(n) = root_of(name) {
            under = under.times(n)?;
            continue;
        }
        let sum = product.remove(name).unwrap_or(0) + power;
        if sum.abs() > MAX_POWER {
            return None;
        }
        if sum != 0 {
            product.insert(name.clone(), sum);
        }
    }
    if under != Rational::ONE {
        let (outside, inside) = under.square_part()?;
        factor = outside;
        if inside != Rational::ONE {
            product.insert(format!("root {inside}"), 1);
        }
    }
    Some((product, factor))
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, text: &str) -> bool {
        let found = text.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c));
        if found {
            self.at += text.chars().count();
        }
        found
    }

    /// A command by its whole name: `\pi`, not the beginning of `\pitch`.
    fn command(&mut self, name: &str) -> bool {
        let end = self.at + 1 + name.len();
        let whole = !self.chars.get(end).is_some_and(char::is_ascii_alphabetic);
        self.peek() == Some('\\') && whole && {
            let begun = self.at;
            self.at += 1;
            let found = self.take(name);
            if !found {
                self.at = begun;
            }
            found
        }
    }

    fn sum(&mut self) -> Option<Expression> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let mut sum = Expression::default();
        let mut negative = self.take("-");
        if !negative {
            self.take("+");
        }
        loop {
            let term = self.product()?;
            sum = sum.plus(if negative { term.negated()? } else { term })?;
            negative = match self.peek() {
                Some('-') => true,
                Some('+') => false,
                _ => break,
            };
            self.at += 1;
        }
        self.depth -= 1;
        Some(sum)
    }

    fn product(&mut self) -> Option<Expression> {
        let mut product = self.mixed()?;
        loop {
            if self.take("*") || self.command("cdot") || self.command("times") {
                product = product.times(&self.signed()?)?;
            } else if self.take("/") || self.command("div") {
                product = product.over(&self.signed()?)?;
            } else if self.peek().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '(' | '\\' | '{')) {
                product = product.times(&self.factor()?)?;
            } else {
                return Some(product);
            }
        }
    }

    fn signed(&mut self) -> Option<Expression> {
        if self.take("-") { self.factor()?.negated() } else { self.factor() }
    }

    /// `3\frac{1}{2}` is three and a half, and so is `3 1/2`; anything else begins with a factor.
    fn mixed(&mut self) -> Option<Expression> {
        let begun = self.at;
        if let Some(whole) = self.number().filter(|n| n.as_whole().is_some())
            && self.take("\\frac")
        {
            let (top, bottom) = (self.argument()?, self.argument()?);
            let part = top.over(&bottom)?;
            let whole = Expression::of(whole);
            return if part.number().is_some() { whole.plus(part) } else { whole.times(&part) };
        }
        self.at = begun;
        self.factor()
    }

    fn factor(&mut self) -> Option<Expression> {
        let base = self.base()?;
        if self.take("^") {
            let exponent = self.argument()?;
            return base.power(&exponent);
        }
        Some(base)
    }

    fn base(&mut self) -> Option<Expression> {
        if let Some(number) = self.number() {
            return Some(Expression::of(number));
        }
        if self.take("\\frac") {
            let (top, bottom) = (self.argument()?, self.argument()?);
            return top.over(&bottom);
        }
        if self.take("\\sqrt") {
            return if self.peek() == Some('[') { None } else { self.argument()?.root() };
        }
        for (open, close) in [("(", ")"), ("{", "}")] {
            if self.take(open) {
                let inside = self.sum()?;
                return self.take(close).then_some(inside);
            }
        }
        self.symbol()
    }

    /// A letter, a word taken as one name, or a known command; with its index.
    fn symbol(&mut self) -> Option<Expression> {
        let mut name = match SYMBOLS.into_iter().find(|symbol| self.command(symbol)) {
            Some(symbol) => format!("\\{symbol}"),
            None => {
                let word = self.chars[self.at..].iter().take_while(|c| c.is_ascii_alphabetic());
                let word: String = word.collect();
                self.at += word.len();
                word
            }
        };
        if name.is_empty() {
            return None;
        }
        if self.take("_") {
            let index = self.argument()?.number()?;
            name.push_str(&format!("_{index}"));
        }
        Some(Expression::atom(name))
    }

    fn number(&mut self) -> Option<Rational> {
        let digits = self.chars[self.at..].iter().take_while(|c| c.is_ascii_digit() || **c == '.');
        let digits: String = digits.collect();
        let number = Rational::decimal(&digits)?;
        self.at += digits.len();
        Some(number)
    }

    /// What follows a command or `^`: a group in braces, or a single character.
    fn argument(&mut self) -> Option<Expression> {
        if self.take("{") {
            let inside = self.sum()?;
            return self.take("}").then_some(inside);
        }
        let next = self.peek()?;
        if next.is_ascii_digit() {
            self.at += 1;
            return Some(Expression::of(Rational::whole(i128::from(next.to_digit(10)?))));
        }
        if next.is_ascii_alphabetic() {
            self.at += 1;
            return Some(Expression::atom(next.to_string()));
        }
        self.base()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(a: &str, b: &str) {
        let (left, right) = (Expression::parse(a), Expression::parse(b));
        assert!(left.is_some() && left == right, "{a}: {left:?}, {b}: {right:?}");
    }

    #[test]
    fn numbers_have_values() {
        for (text, num, den) in [
            ("3/6", 1, 2),
            ("-\\frac{3}{4}", -3, 4),
            ("\\frac12", 1, 2),
            ("3\\frac{1}{2}", 7, 2),
            ("2^{10}", 1024, 1),
            ("1.5\\times10^{3}", 1500, 1),
            ("2*(3+4)-5/10", 27, 2),
            ("10^{-2}", 1, 100),
            ("\\sqrt{16}", 4, 1),
            ("\\sqrt{2}\\sqrt{8}", 4, 1),
            ("--", 0, 0),
        ] {
            let value = Expression::parse(text).and_then(|e| e.number());
            assert_eq!(value, Rational::new(num, den), "{text}");
        }
    }

    #[test]
    fn the_same_in_another_order_or_form() {
        same("x^2+2x+1", "(x+1)^2");
        same("\\frac{\\sqrt{3}}{2}", "\\sqrt{3}/2");
        same("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}");
        same("\\sqrt{12}", "2\\sqrt{3}");
        same("\\frac{\\pi}{4}", "0.25\\pi");
        same("6-2\\sqrt5", "-2\\sqrt{5}+6");
        same("\\frac{3x}{4}", "\\frac{3}{4}x");
    }

    #[test]
    fn words_are_one_name_and_nonsense_is_nothing() {
        assert_ne!(Expression::parse("blue"), Expression::parse("lube"));
        let deep = "(".repeat(500);
        for text in ["", "1/0", "x=2", "\\sin{x}", "2^{x}", "1+", "(2", "a,b", "\\sqrt[3]{2}", deep.as_str()]
        {
            assert_eq!(Expression::parse(text), None, "{text}");
        }
    }
}
