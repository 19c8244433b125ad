//! Fractions of 128-bit integers: what answers are compared as. What does not fit has no value, rather than a rounded one.

use std::fmt;

/// In lowest terms, with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rational {
    num: i128,
    den: i128,
}

impl Rational {
    pub(super) const ZERO: Rational = Rational::whole(0);
    pub(super) const ONE: Rational = Rational::whole(1);

    pub(super) const fn whole(num: i128) -> Self {
        Rational { num, den: 1 }
    }

    /// `None` where the denominator is 0.
    pub(super) fn new(num: i128, den: i128) -> Option<Self> {
        let by = i128::try_from(gcd(num.unsigned_abs(), den.unsigned_abs())).ok()?;
        if den == 0 {
            return None;
        }
        let sign = den.signum();
        Some(Rational { num: (num / by).checked_mul(sign)?, den: (den / by).checked_mul(sign)? })
    }

    /// `12`, `0.5`, `.5`, `3.`: digits with at most one point among them.
    pub(super) fn decimal(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{part}");
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Rational::new(digits.parse().ok()?, 10i128.checked_pow(u32::try_from(part.len()).ok()?)?)
    }

    pub(super) fn is_zero(self) -> bool {
        self.num == 0
    }

    /// The number, if it is whole.
    pub(super) fn as_whole(self) -> Option<i128> {
        (self.den == 1).then_some(self.num)
    }

    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let left = self.num.checked_mul(other.den)?;
        let right = other.num.checked_mul(self.den)?;
        Rational::new(left.checked_add(right)?, self.den.checked_mul(other.den)?)
    }

    pub(super) fn times(self, other: Self) -> Option<Self> {
        Rational::new(self.num.checked_mul(other.num)?, self.den.checked_mul(other.den)?)
    }

    pub(super) fn over(self, other: Self) -> Option<Self> {
        Rational::new(self.num.checked_mul(other.den)?, self.den.checked_mul(other.num)?)
    }

    /// The square root, if it is rational too.
    pub(super) fn root(self) -> Option<Self> {
        let root = |n: i128| {
            let root = u128::try_from(n).ok()?.isqrt();
            (root * root == n.unsigned_abs()).then(|| i128::try_from(root).ok()).flatten()
        };
        Rational::new(root(self.num)?, root(self.den)?)
    }

    /// `(s, r)` with `self` = s² r, where r is whole and no square divides it; `None` for what is negative or large.
    pub(super) fn square_part(self) -> Option<(Self, Self)> {
        // √(a/b) = √(ab)/b.
        let (mut rest, mut outside) = (self.num.checked_mul(self.den)?, 1i128);
        if !(0..=1_000_000_000_000).contains(&rest) {
            return None;
        }
        let mut factor = 2;
        while factor * factor <= rest {
            while rest % (factor * factor) == 0 {
                rest /= factor * factor;
                outside *= factor;
            }
            factor += 1;
        }
        Some((Rational::new(outside, self.den)?, Rational::whole(rest)))
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.den {
            1 => write!(f, "{}", self.num),
            den => write!(f, "{}/{den}", self.num),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(num: i128, den: i128) -> Rational {
        Rational::new(num, den).expect("a denominator")
    }

    #[test]
    fn decimals_are_fractions() {
        assert_eq!(Rational::decimal("0.50"), Some(ratio(1, 2)));
        assert_eq!(Rational::decimal(".25"), Some(ratio(1, 4)));
        assert_eq!(Rational::decimal("3."), Some(Rational::whole(3)));
        for text in ["", ".", "1.2.3", "-1", "1e5", "123456789012345678901234567890123456789012"] {
            assert_eq!(Rational::decimal(text), None, "{text}");
        }
    }

    #[test]
    fn arithmetic_is_exact_or_absent() {
        assert_eq!(ratio(1, 3).plus(ratio(1, 6)), Some(ratio(1, 2)));
        assert_eq!(ratio(2, -4).to_string(), "-1/2");
        assert_eq!(ratio(1, 3).over(Rational::ZERO), None);
        assert_eq!(Rational::whole(i128::MAX).plus(Rational::ONE), None);
        assert_eq!(ratio(9, 4).root(), Some(ratio(3, 2)));
        assert_eq!(ratio(2, 1).root(), None);
        assert_eq!(Rational::whole(72).square_part(), Some((Rational::whole(6), Rational::whole(2))));
        assert_eq!(ratio(1, 2).square_part(), Some((ratio(1, 2), Rational::whole(2))));
    }
}
