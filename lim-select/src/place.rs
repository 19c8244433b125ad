//! Where a model should select: the select layers that keep the most attention, by dynamic programming.
//!
//! The cost of a choice is the layers that read everything, dense and select layers alike; what it brings is the
//! attention mass that the others keep of what they would have read.

use crate::{Error, Layers, Own, Result};

/// How much attention mass every layer keeps that reads what an earlier layer has selected: 1 is all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptMass {
    layers: usize,
    /// `[select layer][reading layer]`; entries below the diagonal do not count, those on it where select layers read their
    /// own choice.
    mass: Vec<f64>,
}

/// Dense layers and select layers; all others reuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Layers that select, ascending, with what they read themselves. Those before the first are dense.
    pub select: Vec<(usize, Own)>,
}

impl KeptMass {
    /// `mass(select layer, reading layer)` for every pair of a model's layers.
    pub fn new(layers: usize, mass: impl Fn(usize, usize) -> f64) -> Self {
        let mass = (0..layers * layers).map(|i| mass(i / layers, i % layers)).collect();
        KeptMass { layers, mass }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// What layer `reader` keeps of its attention on the set of layer `select`.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn get(&self, select: usize, reader: usize) -> f64 {
        self.mass[select * self.layers + reader]
    }

    /// What every layer keeps under `select` layers (ascending): 1 where it reads everything.
    pub fn by_layer(&self, select: &[(usize, Own)]) -> Vec<f64> {
        let source = |layer: usize| select.iter().rev().find(|&&(s, _)| s <= layer).copied();
        let kept = |layer: usize| match source(layer) {
            Some((select, own)) if select < layer || own == Own::Sparse => self.get(select, layer),
            _ => 1.0,
        };
        (0..self.layers).map(kept).collect()
    }

    /// The `count` select layers with the most mass kept in all layers together, the first of them at layer `first`, the
    /// layers before it dense. `own`: what select layers read themselves. Ties: the earlier layers.
    ///
    /// # Errors
    /// When the model has not as many layers from `first` on, or `count` is 0.
    pub fn place(&self, first: usize, count: usize, own: Own) -> Result<Placement> {
        let room = self.layers.saturating_sub(first);
        if count == 0 || count > room {
            let reason =
                format!("{count} select layers from layer {first} on, a model of {} layers", self.layers);
            return Err(Error::Plan(format!("{reason} has room for 1 to {room}")));
        }
        let search = Search { mass: self, floor: f64::NEG_INFINITY, own };
        Ok(search.read(&search.table(count), first, count))
    }

    /// The fewest layers that read everything such that every other layer keeps at least `floor`; among those the most
    /// mass kept. `first`: the first select layer, free where `None`. Under [`Own::Sparse`] a select layer reads its own
    /// choice where that keeps the floor. There always is an answer: every layer may select.
    ///
    /// # Errors
    /// When the model has no layer `first`.
    pub fn place_above(&self, floor: f64, first: Option<usize>, own: Own) -> Result<Placement> {
        if self.layers == 0 || first.is_some_and(|first| first >= self.layers) {
            let first = first.unwrap_or_default();
            return Err(Error::Plan(format!("no layer {first} in a model of {} layers", self.layers)));
        }
        let search = Search { mass: self, floor, own };
        let table = search.table(self.layers);
        let firsts = first.map_or(0..self.layers, |first| first..first + 1);
        let mut best: Option<(usize, f64, usize, usize)> = None;
        for first in firsts {
            // Fewest select layers from here on; more of them would only cost.
            let Some(count) = (1..=self.layers - first).find(|&n| table[n][first].0.is_finite()) else {
                continue;
            };
            let (cost, kept) = (first + count, first as f64 + table[count][first].0);
            if best.is_none_or(|(least, most, ..)| cost < least || (cost == least && kept > most)) {
                best = Some((cost, kept, first, count));
            }
        }
        let (_, _, first, count) = best.unwrap_or((0, 0.0, 0, self.layers));
        Ok(search.read(&table, first, count))
    }
}

/// What is searched for.
struct Search<'a> {
    mass: &'a KeptMass,
    /// No layer may keep less.
    floor: f64,
    /// What select layers read themselves, where that keeps the floor.
    own: Own,
}

impl Search<'_> {
    /// What a select layer reads, and keeps.
    fn own(&self, select: usize) -> (Own, f64) {
        let kept = self.mass.get(select, select);
        if self.own == Own::Sparse && kept >= self.floor { (Own::Sparse, kept) } else { (Own::Dense, 1.0) }
    }

    /// `[select layers][first select layer]`: the most mass that the layers from there on keep, -inf where a layer would
    /// keep less than `floor`, and the next select layer.
    fn table(&self, count: usize) -> Vec<Vec<(f64, usize)>> {
        let layers = self.mass.layers;
        let mut table = vec![vec![(f64::NEG_INFINITY, layers); layers]; count + 1];
        for select in (0..layers).rev() {
            // What `select` and the layers up to `next` keep.
            let (_, mut kept) = self.own(select);
            for next in select + 1..=layers {
                for n in 1..=count {
                    let rest = match (n, next == layers) {
                        (1, true) => 0.0,
                        (1, false) | (_, true) => continue,
                        _ => table[n - 1][next].0,
                    };
                    if kept + rest > table[n][select].0 {
                        table[n][select] = (kept + rest, next);
                    }
                }
                if next < layers {
                    let mass = self.mass.get(select, next);
                    kept += if mass >= self.floor { mass } else { f64::NEG_INFINITY };
                }
            }
        }
        table
    }

    fn read(&self, table: &[Vec<(f64, usize)>], first: usize, count: usize) -> Placement {
        let mut select = vec![first];
        for n in (2..=count).rev() {
            select.extend(select.last().map(|&last| table[n][last].1));
        }
        Placement { select: select.into_iter().map(|layer| (layer, self.own(layer).0)).collect() }
    }
}

impl Placement {
    /// The layers before the first select layer.
    pub fn dense(&self) -> usize {
        self.select.first().map_or(0, |&(layer, _)| layer)
    }

    /// Layers that read everything, if only to select.
    pub fn full_reads(&self) -> usize {
        self.dense() + self.select.len()
    }

    /// As `--layers` takes it.
    ///
    /// # Errors
    /// When no layer selects, or one is named twice.
    pub fn layers(&self) -> Result<Layers> {
        Layers::new(0..self.dense(), self.select.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every set of select layers of a model.
    fn all(layers: usize) -> impl Iterator<Item = Vec<usize>> {
        (1u32..1 << layers).map(move |bits| (0..layers).filter(|l| bits >> l & 1 == 1).collect())
    }

    /// Every select layer reads `own`, but everything where its own choice keeps less than `floor`.
    fn with(mass: &KeptMass, select: &[usize], own: Own, floor: f64) -> Vec<(usize, Own)> {
        let keeps = |s: usize| mass.get(s, s) >= floor;
        select.iter().map(|&s| (s, if keeps(s) { own } else { Own::Dense })).collect()
    }

    fn kept(mass: &KeptMass, select: &[(usize, Own)]) -> f64 {
        mass.by_layer(select).iter().sum()
    }

    fn any_own() -> impl proptest::strategy::Strategy<Value = Own> {
        proptest::prop_oneof![proptest::strategy::Just(Own::Dense), proptest::strategy::Just(Own::Sparse)]
    }

    fn pseudo_random(layers: usize, seed: u64) -> KeptMass {
        KeptMass::new(layers, |s, l| {
            let x = (seed ^ ((s * 97 + l * 13 + 1) as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (x >> 40) as f64 / (1 << 24) as f64
        })
    }

    proptest::proptest! {
        #[test]
        fn place_is_the_best_of_all(
            layers in 1usize..8, seed in 0u64..1 << 40, first in 0usize..8, count in 1usize..8, own in any_own(),
        ) {
            let mass = pseudo_random(layers, seed);
            let best = all(layers)
                .filter(|select| select[0] == first && select.len() == count)
                .map(|select| kept(&mass, &with(&mass, &select, own, 0.0)))
                .fold(f64::NEG_INFINITY, f64::max);
            match mass.place(first, count, own) {
                Ok(placement) => {
                    proptest::prop_assert_eq!((placement.dense(), placement.select.len()), (first, count));
                    proptest::prop_assert!((kept(&mass, &placement.select) - best).abs() < 1e-12);
                }
                Err(_) => proptest::prop_assert!(first + count > layers),
            }
        }

        #[test]
        fn place_above_is_the_cheapest_of_all(
            layers in 1usize..8, seed in 0u64..1 << 40, floor in 0.0f64..1.1, first in proptest::option::of(0usize..7),
            own in any_own(),
        ) {
            let (mass, floor) = (pseudo_random(layers, seed), floor.min(1.0));
            let above = |select: &Vec<(usize, Own)>| mass.by_layer(select).iter().all(|&kept| kept >= floor);
            let cost = |select: &Vec<(usize, Own)>| select[0].0 + select.len();
            let mut good: Vec<Vec<(usize, Own)>> = all(layers)
                .map(|select| with(&mass, &select, own, floor))
                .filter(|s| first.is_none_or(|first| s[0].0 == first) && above(s))
                .collect();
            good.sort_by(|a, b| cost(a).cmp(&cost(b)).then(kept(&mass, b).total_cmp(&kept(&mass, a))));
            match mass.place_above(floor, first, own) {
                Ok(placement) => {
                    proptest::prop_assert!(above(&placement.select));
                    proptest::prop_assert_eq!(placement.full_reads(), cost(&good[0]));
                    proptest::prop_assert!(
                        (kept(&mass, &placement.select) - kept(&mass, &good[0])).abs() < 1e-12
                    );
                }
                Err(_) => proptest::prop_assert!(first.is_some_and(|first| first >= layers)),
            }
        }
    }

    #[test]
    fn a_layer_that_nobody_foresees_selects_for_itself() {
        // Layer 3 attends to what no earlier layer ranks high.
        let mass = KeptMass::new(6, |_, l| if l == 3 { 0.2 } else { 0.97 });
        let layers =
            |placement: Result<Placement>| placement.expect("fits").layers().expect("valid").to_string();
        assert_eq!(layers(mass.place(1, 2, Own::Dense)), "dense=0,select=1,3");
        let placement = mass.place_above(0.95, None, Own::Dense).expect("has layers");
        assert_eq!(placement.full_reads(), 2);
        assert_eq!(layers(Ok(placement)), "select=0,3");
        // Its own choice does not suit it either, so it reads everything.
        assert_eq!(layers(mass.place_above(0.95, None, Own::Sparse)), "select=0s,3");
        let by_layer = mass.by_layer(&[(1, Own::Dense), (3, Own::Sparse)]);
        assert_eq!(by_layer, [1.0, 1.0, 0.97, 0.2, 0.97, 0.97]);
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let mass = KeptMass::new(3, |_, _| 0.5);
        let error = mass.place(1, 3, Own::Dense).expect_err("layers 1 and 2").to_string();
        assert_eq!(error, "layers: 3 select layers from layer 1 on, a model of 3 layers has room for 1 to 2");
        mass.place(0, 0, Own::Dense).expect_err("nothing selects");
        mass.place_above(0.5, Some(3), Own::Dense).expect_err("no such layer");
        let all = mass.place_above(1.0, Some(1), Own::Dense).expect("all select");
        assert_eq!(all.select, [(1, Own::Dense), (2, Own::Dense)]);
    }
}
