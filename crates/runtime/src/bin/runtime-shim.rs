//! The shim as a program of its own: the tests' stand-in for `cox runtime-shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|word| word != "runtime-shim") {
        eprintln!("usage: runtime-shim runtime-shim zygote|<sandbox folder>");
        return ExitCode::from(2);
    }
    runtime::shim_main(args)
}
