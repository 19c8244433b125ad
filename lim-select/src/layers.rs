//! The `--layers` grammar: `dense=0-1,select=2,12s`.
//!
//! Comma-separated layers or ranges `a-b`; `dense=` and `select=` each begin a list, a new key ends it. `s` behind a
//! select entry marks its layers own-sparse. Layers are numbered from 0; every layer not named reuses.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Own, Result, Role};

/// Layers that do not reuse, by number; at least one of them selects. Not yet checked against a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    roles: BTreeMap<usize, Role>,
}

/// Numbers beyond this are typing errors: they would only cost time.
const MAX_LAYER: usize = 9_999;

impl Layers {
    /// `dense` layers, and `select` layers with what they attend to themselves.
    ///
    /// # Errors
    /// When a layer is named twice, none selects, or a number exceeds 9999.
    pub fn new(
        dense: impl IntoIterator<Item = usize>,
        select: impl IntoIterator<Item = (usize, Own)>,
    ) -> Result<Self> {
        let dense = dense.into_iter().map(|layer| (layer, Role::Dense));
        let select = select.into_iter().map(|(layer, own)| (layer, Role::Select { own }));
        let mut roles = BTreeMap::new();
        for (layer, role) in dense.chain(select) {
            insert(&mut roles, layer, role).map_err(Error::Plan)?;
        }
        let layers = Layers { roles };
        if layers.selects() { Ok(layers) } else { Err(Error::Plan(NO_SELECT.into())) }
    }

    /// Named layers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Role)> {
        self.roles.iter().map(|(&layer, &role)| (layer, role))
    }

    fn selects(&self) -> bool {
        self.roles.values().any(|role| matches!(role, Role::Select { .. }))
    }
}

const NO_SELECT: &str = "no layer selects; policy `full` is the one without selection";

fn insert(roles: &mut BTreeMap<usize, Role>, layer: usize, role: Role) -> Result<(), String> {
    if layer > MAX_LAYER {
        return Err(format!("layer {layer} is beyond {MAX_LAYER}"));
    }
    match roles.insert(layer, role) {
        None => Ok(()),
        Some(Role::Dense) if role != Role::Dense => Err(format!("layer {layer} is dense already")),
        Some(_) => Err(format!("layer {layer} is named twice")),
    }
}

/// The list that entries go to.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Dense,
    Select,
}

impl FromStr for Layers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut roles = BTreeMap::new();
        let mut seen = Vec::new();
        let mut column = 1;
        for part in text.split(',') {
            let at = |column, part: &str, reason| Error::Layers { part: part.into(), column, reason };
            let mut entry = (column, part);
            if let Some((name, rest)) = part.split_once('=') {
                let key = match name {
                    "dense" => Key::Dense,
                    "select" => Key::Select,
                    _ => return Err(at(column, name, "unknown key: dense or select".into())),
                };
                if seen.contains(&key) {
                    return Err(at(column, name, "given twice".into()));
                }
                seen.push(key);
                entry = (column + name.chars().count() + 1, rest);
            }
            let Some(&key) = seen.last() else {
                return Err(at(column, part, "a list begins with dense= or select=".into()));
            };
            let (start, entry) = entry;
            let (layers, role) = parse_entry(entry, key).map_err(|reason| at(start, entry, reason))?;
            for layer in layers {
                insert(&mut roles, layer, role).map_err(|reason| at(start, entry, reason))?;
            }
            column += part.chars().count() + 1;
        }
        let layers = Layers { roles };
        if layers.selects() {
            return Ok(layers);
        }
        Err(Error::Layers { part: text.into(), column: 1, reason: NO_SELECT.into() })
    }
}

/// One entry: a layer or a range, with an `s` behind it in a select list.
fn parse_entry(entry: &str, key: Key) -> Result<(RangeInclusive<usize>, Role), String> {
    let (numbers, role) = match (key, entry.strip_suffix('s')) {
        (Key::Dense, None) => (entry, Role::Dense),
        (Key::Dense, Some(_)) => return Err("`s` belongs to select layers only".into()),
        (Key::Select, None) => (entry, Role::Select { own: Own::Dense }),
        (Key::Select, Some(numbers)) => (numbers, Role::Select { own: Own::Sparse }),
    };
    let number = |text: &str| match text.parse::<usize>() {
        Ok(n) if text.bytes().all(|b| b.is_ascii_digit()) && n <= MAX_LAYER => Ok(n),
        _ => Err(format!("expected a layer from 0 to {MAX_LAYER} or a range such as 3-5")),
    };
    let (first, last) = match numbers.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(numbers)?, number(numbers)?),
    };
    if first > last {
        return Err("the range runs backwards".into());
    }
    Ok((first..=last, role))
}

/// The shortest text of the grammar that means the same.
impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dense = runs(self.iter().filter(|&(_, role)| role == Role::Dense));
        let select = runs(self.iter().filter(|&(_, role)| role != Role::Dense));
        let lists = [("dense=", dense), ("select=", select)];
        let lists: Vec<String> = lists
            .into_iter()
            .filter(|(_, entries)| !entries.is_empty())
            .map(|(key, entries)| format!("{key}{}", entries.join(",")))
            .collect();
        f.write_str(&lists.join(","))
    }
}

/// Entries of one list, neighbours of the same role joined to ranges.
fn runs(layers: impl Iterator<Item = (usize, Role)>) -> Vec<String> {
    let mut runs: Vec<(usize, usize, Role)> = Vec::new();
    for (layer, role) in layers {
        match runs.last_mut() {
            Some((_, last, of)) if *last + 1 == layer && *of == role => *last = layer,
            _ => runs.push((layer, layer, role)),
        }
    }
    let suffix = |role| if role == (Role::Select { own: Own::Sparse }) { "s" } else { "" };
    runs.into_iter()
        .map(|(first, last, role)| match first == last {
            true => format!("{first}{}", suffix(role)),
            false => format!("{first}-{last}{}", suffix(role)),
        })
        .collect()
}

impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Layers {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn reads_the_grammar() {
        let select = |own| Role::Select { own };
        let got: Vec<_> = parse("dense=0-1,select=2,12s,15-16s").iter().collect();
        assert_eq!(
            got,
            [
                (0, Role::Dense),
                (1, Role::Dense),
                (2, select(Own::Dense)),
                (12, select(Own::Sparse)),
                (15, select(Own::Sparse)),
                (16, select(Own::Sparse)),
            ]
        );
        assert_eq!(parse("select=2,dense=0,1,30").to_string(), "dense=0-1,30,select=2");
        assert_eq!(parse("select=0-1s,2").to_string(), "select=0-1s,2");
    }

    #[test]
    fn errors_name_part_and_column() {
        for (text, message) in [
            ("", "layers: `` at column 1: a list begins with dense= or select="),
            ("2,3", "layers: `2` at column 1: a list begins with dense= or select="),
            ("dense=0,reuse=1", "layers: `reuse` at column 9: unknown key: dense or select"),
            (
                "dense=0,select=",
                "layers: `` at column 16: expected a layer from 0 to 9999 or a range such as 3-5",
            ),
            (
                "select=2,x",
                "layers: `x` at column 10: expected a layer from 0 to 9999 or a range such as 3-5",
            ),
            ("select=+2", "layers: `+2` at column 8: expected a layer from 0 to 9999 or a range such as 3-5"),
            ("select=5-3", "layers: `5-3` at column 8: the range runs backwards"),
            ("dense=1s,select=2", "layers: `1s` at column 7: `s` belongs to select layers only"),
            ("dense=0-2,select=2", "layers: `2` at column 18: layer 2 is dense already"),
            ("select=2,12,2s", "layers: `2s` at column 13: layer 2 is named twice"),
            ("select=2,select=3", "layers: `select` at column 10: given twice"),
            (
                "dense=0-3",
                "layers: `dense=0-3` at column 1: no layer selects; policy `full` is the one without selection",
            ),
        ] {
            assert_eq!(text.parse::<Layers>().expect_err(text).to_string(), message);
        }
    }
}
