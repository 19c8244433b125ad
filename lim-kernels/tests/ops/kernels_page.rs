//! docs/kernels.md lists exactly the launchers of the C header, with files that exist.

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn names_every_launcher() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let header = read("csrc/lim_kernels.h");
    let launchers: BTreeSet<&str> = header
        .lines()
        .filter(|line| {
            line.starts_with("lim_i32 lim_")
                || line.starts_with("lim_i64 lim_")
                || line.starts_with("lim_u64 lim_")
        })
        .map(|line| line.split([' ', '(']).nth(1).unwrap())
        .collect();
    let page = read("../docs/kernels.md");
    let mut listed = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains("`lim_")) {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, _, wrapper, symbol, file, ..] = cells[..] else { panic!("a row with too few cells: {row}") };
        assert!(listed.insert(symbol), "{symbol} is listed twice");
        assert!(root.join("src/cuda").join(wrapper).exists(), "{symbol}: no {wrapper}");
        let source = read(&format!("csrc/{file}"));
        assert!(source.contains(&format!(" {symbol}(")), "{symbol} is not in {file}");
    }
    assert!(launchers.len() > 10, "{launchers:?}");
    assert_eq!(listed, launchers);
}
