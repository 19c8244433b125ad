//! Runs lim-cli and keeps what it said.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A finished run.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// lim-cli with `args`, nothing on stdin.
pub(crate) fn lim(args: &[&str]) -> Run {
    lim_with_stdin(args, "")
}

pub(crate) fn lim_with_stdin(args: &[&str], stdin: &str) -> Run {
    let mut child = command(args).stdin(Stdio::piped()).spawn().expect("lim-cli starts");
    // Who does not read stdin may have ended already.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("lim-cli ends");
    Run {
        code: output.status.code().expect("an exit code, not a signal"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
    }
}

/// lim-cli where cargo built it or, for tests that were carried to another machine, in their bundle.
pub(crate) fn command(args: &[&str]) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_lim-cli"));
    let mut command = Command::new(if built.exists() { built } else { Path::new("dist/bin/lim-cli") });
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Run {
    /// Stdout of a run that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "stderr: {}", self.stderr);
        self.stdout
    }

    /// Stdout of a run that succeeded, as one JSON value on one line.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let stdout = self.ok();
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        serde_json::from_str(&stdout).expect("JSON")
    }

    /// Stderr of a run that was refused as bad usage, with nothing on stdout.
    #[track_caller]
    pub(crate) fn usage(self) -> String {
        assert_eq!(self.code, 2, "stderr: {}", self.stderr);
        assert_eq!(self.stdout, "");
        self.stderr
    }
}

/// Keys of a JSON object, in order.
#[track_caller]
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}
