//! How rows are drawn for, and what was drawn.

use super::store::shape_error;
use crate::{Draw, Error, MAX_STOP_TOKENS, MAX_UNREAD_DRAWS, Result, SampleParams, Sampled};

const OP: &str = "sample";
/// Marks tokens of the prompt among the counts of generated ones.
pub(super) const IN_PROMPT: u32 = 1 << 31;

/// Settings, counts and results of a step's rows.
#[derive(Debug)]
pub struct Draws {
    places: Vec<Place>,
    /// Times each token was generated, [`IN_PROMPT`] for prompt tokens: `[rows, vocab]` once a penalty asks for it.
    seen: Vec<u32>,
    pub(super) vocab: usize,
    /// Rows that were started.
    pub(super) started: usize,
    /// Results of the steps posted and not read, or of the one that has just sampled.
    results: [Vec<Sampled>; MAX_UNREAD_DRAWS],
    posted: usize,
    read: usize,
}

/// How one row is drawn for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) params: SampleParams,
    /// Tokens generated so far.
    pub(super) drawn: u64,
    pub(super) forced: Option<u32>,
    stop: [u32; MAX_STOP_TOKENS],
    stops: usize,
}

impl Draws {
    pub(super) fn new(rows: usize, vocab: usize) -> Self {
        let nothing = Sampled { token: 0, logprob: 0.0 };
        Draws {
            places: vec![Place::default(); rows],
            seen: Vec::new(),
            vocab,
            started: 0,
            results: std::array::from_fn(|_| vec![nothing; rows]),
            posted: 0,
            read: 0,
        }
    }

    pub(super) fn start(&mut self, draws: &[Draw<'_>]) -> Result<()> {
        self.expect_rows(draws.len())?;
        for draw in draws {
            draw.check(OP, self.vocab)?;
        }
        self.places.fill(Place::default());
        for (place, draw) in self.places.iter_mut().zip(draws) {
            let Draw { params, generated, forced, stop, .. } = *draw;
            *place = Place { params, drawn: generated.len() as u64, forced, stops: stop.len(), ..*place };
            place.stop[..stop.len()].copy_from_slice(stop);
        }
        if draws.iter().any(|draw| draw.params.has_penalty()) {
            self.seen.resize(self.places.len() * self.vocab, 0);
            for (draw, seen) in draws.iter().zip(self.seen.chunks_exact_mut(self.vocab.max(1))) {
                seen.fill(0);
                draw.generated.iter().for_each(|&token| seen[token as usize] += 1);
                draw.prompt.iter().for_each(|&token| seen[token as usize] |= IN_PROMPT);
            }
        }
        (self.started, self.posted, self.read) = (draws.len(), 0, 0);
        Ok(())
    }

    pub(super) fn force(&mut self, tokens: &[Option<u32>]) -> Result<()> {
        self.expect_rows(tokens.len())?;
        if let Some(token) = tokens.iter().flatten().find(|&&token| token as usize >= self.vocab) {
            let must = format!("below the vocabulary's {}", self.vocab);
            return Err(Error::Range { op: OP, what: "token id", got: u64::from(*token), must });
        }
        for (place, token) in self.places.iter_mut().zip(tokens) {
            place.forced = *token;
        }
        Ok(())
    }

    /// The results of the step at hand, and how to draw them.
    pub(super) fn parts(&mut self) -> (&mut [Sampled], &[Place], &[u32]) {
        (&mut self.results[self.posted % MAX_UNREAD_DRAWS], &self.places, &self.seen)
    }

    /// Moves a row that has been drawn for one token on. The token, unless it ends the sequence.
    pub(super) fn advance(&mut self, row: usize) -> Option<u32> {
        let token = self.results[self.posted % MAX_UNREAD_DRAWS][row].token;
        let place = &mut self.places[row];
        if place.params.has_penalty() && !self.seen.is_empty() {
            self.seen[row * self.vocab + token as usize] += 1;
        }
        place.drawn += 1;
        place.forced = None;
        (!place.stop[..place.stops].contains(&token)).then_some(token)
    }

    /// Checks that there are places for `rows` rows.
    pub(super) fn expect_rows(&self, rows: usize) -> Result<()> {
        if rows <= self.places.len() {
            return Ok(());
        }
        Err(shape_error(OP, "rows to draw for", &[rows], &[self.places.len()]))
    }

    pub(super) fn post(&mut self) -> Result<()> {
        if self.posted - self.read >= MAX_UNREAD_DRAWS {
            let (got, must) = ((self.posted - self.read + 1) as u64, format!("at most {MAX_UNREAD_DRAWS}"));
            return Err(Error::Range { op: OP, what: "unread draws", got, must });
        }
        self.posted += 1;
        Ok(())
    }

    pub(super) fn take(&mut self, out: &mut [Sampled]) -> Result<()> {
        self.expect_rows(out.len())?;
        if self.read == self.posted {
            let must = "at least 1".into();
            return Err(Error::Range { op: OP, what: "draws posted and not read", got: 0, must });
        }
        out.copy_from_slice(&self.results[self.read % MAX_UNREAD_DRAWS][..out.len()]);
        self.read += 1;
        Ok(())
    }
}
