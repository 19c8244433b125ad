//! Writes `src/cuda/ffi.rs` from `csrc/lim_kernels.h`; with `--check`, fails where the file is not current.

use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = root.join("csrc/lim_kernels.h");
    let target = root.join("src/cuda/ffi.rs");
    let bindings = bindgen::builder()
        .header(header.display().to_string())
        .allowlist_item("(lim|LIM)_.*")
        .use_core()
        .default_macro_constant_type(bindgen::MacroTypeVariation::Signed)
        .derive_copy(true)
        .derive_debug(false)
        .merge_extern_blocks(true)
        .clang_arg("-fparse-all-comments")
        .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|e| e.to_string())?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .rustfmt_configuration_file(Some(root.join("../rustfmt.toml").canonicalize()?))
        .raw_line("// Made by scripts/bindgen.sh from csrc/lim_kernels.h; CI checks that it is current.")
        .disable_header_comment()
        .generate()?
        .to_string();
    match std::env::args().nth(1).as_deref() {
        None => fs::write(&target, bindings)?,
        Some("--check") if fs::read_to_string(&target)? == bindings => {}
        Some("--check") => {
            return Err(format!("{} is not current: run scripts/bindgen.sh", target.display()).into());
        }
        Some(other) => return Err(format!("unknown argument {other}; the only one is --check").into()),
    }
    Ok(())
}
