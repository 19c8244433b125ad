//! Rotary tables against HF's, for the settings of published models.

use lim_model::{Config, Rope};

use crate::goldens;

#[test]
fn tables_match_hf_at_long_positions() {
    for case in goldens::json("rope.json").as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let config = Config::from_json(name, case["config"].to_string().as_bytes()).unwrap();
        let rope = Rope::new(&config);
        let positions: Vec<usize> =
            case["positions"].as_array().unwrap().iter().map(|p| p.as_u64().unwrap() as usize).collect();
        let table = match case["length"].as_u64() {
            Some(len) => rope.prefill_table(len as usize).unwrap_or_else(|| rope.table(len as usize)),
            None => rope.table(positions.last().unwrap() + 1),
        };
        let row = |p: usize| p * table.half..(p + 1) * table.half;
        for (i, p) in positions.into_iter().enumerate() {
            for (ours, theirs) in [(&table.cos, &case["cos"][i]), (&table.sin, &case["sin"][i])] {
                let worst = goldens::distance(&ours[row(p)], &goldens::floats(theirs));
                // torch's own pow is off by its last bit in one of theta 1e6's frequencies.
                assert!(worst < 2e-6, "{name}: position {p} is off by {worst}");
            }
        }
    }
}

#[test]
fn dynamic_rows_follow_the_length() {
    let json =
        br#"{"architectures":["LlamaForCausalLM"],"vocab_size":8,"hidden_size":16,"intermediate_size":16,
        "num_hidden_layers":1,"num_attention_heads":2,"max_position_embeddings":10,
        "rope_scaling":{"type":"dynamic","factor":2.0}}"#;
    let rope = Rope::new(&Config::from_json("dynamic", json).unwrap());
    assert!(rope.prefill_table(10).is_none());
    let decode = rope.table(20);
    let grown = rope.prefill_table(20).unwrap();
    let row = |p: usize| p * decode.half..(p + 1) * decode.half;
    assert_eq!(decode.cos[row(19)], grown.cos[row(19)], "the last row of a prefill is a decode row");
    assert_ne!(decode.cos[row(9)], grown.cos[row(9)], "earlier rows of a long prefill are stretched too");
    assert_eq!(decode.cos[row(9)], rope.table(10).cos[row(9)]);
}
