//! Compiles lb-ebpf for the BPF target and hands the objects' paths on: `LB_OBJECT` is what runs on
//! nodes, `LB_BENCH_OBJECT` what `lb bench` measures with.
//!
//! No nightly: `RUSTC_BOOTSTRAP` opens `build-std` for this one build (host crates probe for the
//! variable, so it must not reach them).

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Debug info and `--btf` give the object its BTF; align-1 headers are read by whole words rather
/// than byte by byte; v3 has 32-bit ALU operations and jumps (Linux 5.1).
const FLAGS: &[&str] = &[
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    "-Ctarget-cpu=v3",
];

/// What the cargo that runs us, or clippy, means for host crates alone.
const NOT_FOR_BPF: &[&str] =
    &["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CLIPPY_ARGS", "CARGO_INCREMENTAL"];

fn main() -> ExitCode {
    match compile() {
        Ok(folder) => {
            for (variable, name) in [("LB_OBJECT", "lb"), ("LB_BENCH_OBJECT", "bench")] {
                println!("cargo::rustc-env={variable}={}", folder.join(name).display());
            }
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("{what}\nif a tool is missing, `cargo xtask setup build` installs it");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the objects.
fn compile() -> Result<PathBuf, String> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    for input in ["lb-ebpf", "lb-common/src", "lb-common/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed=../{input}");
    }
    println!("cargo::rerun-if-env-changed=PATH");
    let path = variable("PATH")?;
    if !env::split_paths(&path).any(|folder| folder.join("bpf-linker").is_file()) {
        return Err("bpf-linker, which links eBPF objects, is not on PATH".to_owned());
    }

    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let folder = Path::new(&variable("OUT_DIR")?).join("ebpf");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(&workspace)
        .args(["build", "--package=lb-ebpf", "--release", "-Zbuild-std=core"])
        .args(["--config=profile.release.codegen-units=1", "--target", target])
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    if env::var_os("CARGO_FEATURE_LAYOUT_B").is_some() {
        cargo.arg("--features=lb-ebpf/layout-b");
    }
    for name in NOT_FOR_BPF {
        cargo.env_remove(name);
    }
    let status = cargo.status().map_err(|error| format!("cannot start cargo: {error}"))?;
    if !status.success() {
        return Err(format!("compiling lb-ebpf failed ({status}), see above"));
    }
    Ok(folder.join(target).join("release"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: cargo runs this script"))
}
