//! The one binary: the server and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    proofmark::cli::run()
}
