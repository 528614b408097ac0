//! Arguments in, exit code out.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real load for Loadline.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves requests with a capacity, and pushes its metrics.
    Worker(loadgen::worker::Arguments),
    /// Sends requests to the endpoints of a file, at the rate of a trace or a shape.
    Drive(loadgen::drive::Arguments),
    /// Runs Loadline, a fleet of workers and the driver, and shows them live until Ctrl-C.
    Demo(loadgen::demo::Arguments),
    /// Plays Loadline's stages under a virtual clock with faults drawn from seeds, and checks what must hold.
    Simulate(loadgen::simulate::Arguments),
    /// Runs three Loadlines on a Kafka broker, kills and stops them and the broker under load, and checks what must hold.
    #[cfg(feature = "kafka")]
    Chaos(loadgen::chaos::Arguments),
    /// Measures what the pipeline costs on real servers, and says which targets are reached.
    #[cfg(feature = "kafka")]
    Bench(loadgen::bench::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Worker(arguments) => loadgen::worker::run(arguments),
        Command::Drive(arguments) => loadgen::drive::run(&arguments),
        Command::Demo(arguments) => loadgen::demo::run(arguments),
        Command::Simulate(arguments) => loadgen::simulate::simulate(&arguments),
        #[cfg(feature = "kafka")]
        Command::Chaos(arguments) => loadgen::chaos::run(&arguments),
        #[cfg(feature = "kafka")]
        Command::Bench(arguments) => loadgen::bench::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
