//! Compiles `csrc/*.cu` into a static library when the feature `cuda` is on; does nothing otherwise.
//!
//! `NVCC` (or `nvcc` on the PATH) and `CUDA_HOME` say where the toolkit is: `eval "$(scripts/cuda-toolkit.sh)"` sets
//! them. `LIM_CUDA_ARCHS` names the architectures, such as `90a` or `80,90a`; `NNptx` embeds PTX instead of machine
//! code.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    cuda::build();
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;
    use std::{env, fs};

    /// Every architecture that a release carries; newer ones compile the PTX when they load it.
    const RELEASE_ARCHS: &str = "80,86,89,90a,100,120,80ptx";

    pub(super) fn build() {
        for name in ["LIM_CUDA_ARCHS", "CUDA_HOME", "NVCC"] {
            println!("cargo::rerun-if-env-changed={name}");
        }
        println!("cargo::rerun-if-changed=csrc");
        compile(&files(Path::new("csrc"), &["cu"]));
        link();
    }

    /// The folder's files with one of these extensions, in order.
    fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
        let entries = folder.read_dir().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display())).path())
            .filter(|path| extensions.iter().any(|wanted| path.extension().is_some_and(|ext| ext == *wanted)))
            .collect();
        files.sort();
        files
    }

    /// Compiles the sources that changed since their objects were made: nvcc takes up to a minute a file.
    fn compile(sources: &[PathBuf]) {
        let archs = env::var("LIM_CUDA_ARCHS").unwrap_or_else(|_| RELEASE_ARCHS.into());
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let common = (env::var_os("NVCC"), &archs, read_all(&files(Path::new("csrc"), &["h", "cuh"])));
        let object = |source: &PathBuf| {
            let mut state = DefaultHasher::new();
            (read_all(std::slice::from_ref(source)), &common, VERSION).hash(&mut state);
            let stem = source.file_stem().expect("a source has a name").to_string_lossy();
            out.join(format!("{stem}-{:016x}.o", state.finish()))
        };
        let objects: Vec<PathBuf> = sources.iter().map(object).collect();
        let stale = Mutex::new(sources.iter().zip(&objects).filter(|(_, object)| !object.exists()));
        let next = || stale.lock().expect("no worker panics while it holds the lock").next();
        let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some((source, object)) = next() {
                        // One file a call: given several, cc makes device code that has to be linked again.
                        let made = nvcc(&archs).file(source).compile_intermediates().remove(0);
                        fs::rename(made, object).unwrap_or_else(|e| panic!("{}: {e}", object.display()));
                    }
                });
            }
        });
        cc::Build::new().cpp(true).cpp_link_stdlib_static(true).objects(objects).compile("lim_cuda");
    }

    /// Goes into the objects' names: to be raised when the flags below change.
    const VERSION: u32 = 3;

    fn nvcc(archs: &str) -> cc::Build {
        let mut build = cc::Build::new();
        // debug(true) would make nvcc emit -G: unoptimised device code.
        build.cuda(true).cudart("none").debug(false).opt_level(3).cpp_link_stdlib(None);
        build.flag("-std=c++17").flag("--compress-mode=size").flag("-lineinfo");
        build.flag("-Xcompiler=-fno-exceptions").include("csrc").cargo_metadata(false);
        for arch in archs.split(',') {
            build.flag(gencode(arch));
        }
        // Host code cannot see whether machine code for sm_90a, and not just some that runs there, is in the build.
        if archs.split(',').any(|arch| arch == "90a") {
            build.define("LIM_SM_90A", None);
        }
        build
    }

    fn read_all(files: &[PathBuf]) -> Vec<Vec<u8>> {
        let read = |file: &PathBuf| fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        files.iter().map(read).collect()
    }

    /// nvcc's flag for `90a` (machine code) or `80ptx`.
    fn gencode(arch: &str) -> String {
        let number = arch.strip_suffix("ptx").unwrap_or(arch);
        let digits = number.strip_suffix('a').unwrap_or(number);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            panic!("LIM_CUDA_ARCHS: {arch:?} is not an architecture such as 80, 90a or 80ptx");
        }
        let code = if number == arch { "sm" } else { "compute" };
        format!("-gencode=arch=compute_{number},code={code}_{number}")
    }

    fn link() {
        let home = cuda_home();
        for lib in ["lib64", "lib", "targets/x86_64-linux/lib"] {
            let path = home.join(lib);
            if path.join("libcudart_static.a").exists() {
                println!("cargo::rustc-link-search=native={}", path.display());
            }
        }
        println!("cargo::rustc-link-lib=static=cudart_static");
        for lib in ["rt", "pthread", "dl"] {
            println!("cargo::rustc-link-lib={lib}");
        }
    }

    /// `CUDA_HOME`, or the folder two above the `nvcc` on the PATH.
    fn cuda_home() -> PathBuf {
        if let Some(home) = env::var_os("CUDA_HOME") {
            return home.into();
        }
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .map(|folder| folder.join("nvcc"))
            .find(|nvcc| nvcc.exists())
            .and_then(|nvcc| Some(nvcc.canonicalize().ok()?.parent()?.parent()?.to_path_buf()))
            .expect(
                "feature `cuda`: no CUDA_HOME and no nvcc on the PATH; eval \"$(scripts/cuda-toolkit.sh)\"",
            )
    }
}
