//! `loadline`: arguments in, exit code out.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;
use loadline::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = BufWriter::new(io::stdout());
    let answer = cli::run(cli, &mut out).and_then(|code| Ok(out.flush().map(|()| code)?));
    match answer {
        Ok(code) => ExitCode::from(code),
        // Whoever reads the answer has read enough (`| head`).
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            cli::tell(&format!("loadline: {error:#}"));
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
