//! The guide's pages have what the examples have.

use common::*;

#[common::test]
fn the_guide_has_the_unit_of_the_example() -> Outcome {
    const PAGE: &str = include_str!("../../bpf-pin/src/guide/restarting.md");
    const UNIT: &str = include_str!("../../examples/packets.service");
    assert!(PAGE.contains(&format!("```ini\n{UNIT}```\n")));
    Ok(())
}
