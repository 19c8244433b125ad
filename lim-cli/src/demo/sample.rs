//! Sample problems of about a thousand characters of working, none of which the model has seen in training.

use super::{Line, Problem};
use crate::random::Random;

impl Problem {
    /// The problem of a seed: the three tasks take turns.
    pub(crate) fn sample(seed: u64) -> Self {
        let mut random = Random(seed);
        loop {
            let problem = match seed % 3 {
                0 => edit(&mut random),
                1 => walk(&mut random),
                _ => prog(&mut random),
            };
            if held_out(&problem.to_string()) {
                return problem;
            }
        }
    }
}

/// Training leaves out the prompts whose CRC-32 is a multiple of 16 (`tasks.py`).
fn held_out(prompt: &str) -> bool {
    crc32(prompt.as_bytes()).is_multiple_of(16)
}

/// CRC-32 of zlib and PNG, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

fn edit(random: &mut Random) -> Problem {
    let letters = random.letters(5);
    let length = random.between(10, 14);
    let from: Vec<char> = (0..length).map(|_| random.one_of(&letters)).collect();
    let mut to = from.clone();
    for _ in 0..random.between(2, 4) {
        let at = random.between(0, to.len() - 1);
        match random.between(0, 2) {
            0 => to[at] = random.one_of(&letters),
            1 => to.insert(at, random.one_of(&letters)),
            _ => drop(to.remove(at)),
        }
    }
    Problem::Edit { from: from.into_iter().collect(), to: to.into_iter().collect() }
}

fn walk(random: &mut Random) -> Problem {
    let nodes = {
        let count = random.between(8, 14);
        random.letters(count)
    };
    let mut to = nodes.clone();
    random.shuffle(&mut to);
    let start = random.one_of(&nodes);
    Problem::Walk { arrows: nodes.into_iter().zip(to).collect(), start, steps: random.between(120, 200) }
}

fn prog(random: &mut Random) -> Problem {
    let names = {
        let count = random.between(3, 4);
        random.letters(count)
    };
    let start = names.iter().map(|&name| (name, random.between(0, 9) as u8)).collect();
    let line = |label: char, random: &mut Random| Line {
        label,
        target: random.one_of(&names),
        left: random.one_of(&names),
        op: random.one_of(&['+', '+', '-', '-', '*']),
        right: random.one_of(&names),
    };
    let lines: Vec<Line> = ('A'..).take(random.between(4, 6)).map(|label| line(label, random)).collect();
    Problem::Prog { start, rounds: random.between(8, 12), lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn samples_are_problems_that_parse_and_are_held_out() {
        for seed in 0..60 {
            let problem = Problem::sample(seed);
            let prompt = problem.to_string();
            assert_eq!(Problem::parse(&prompt).as_ref(), Some(&problem), "{prompt}");
            assert!(held_out(&prompt));
            assert_eq!(problem, Problem::sample(seed));
        }
        assert_ne!(Problem::sample(0), Problem::sample(3));
    }
}
