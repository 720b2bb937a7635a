use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_gpt::run(std::env::args_os()).into()
}
