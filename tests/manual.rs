//! Tests of completions and manual pages.

use std::io::Write;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use kubectl_gpt::cli::Cli;

fn kubectl_gpt(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn completions_include_all_commands_and_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = kubectl_gpt(&["completions", shell]);
        assert_eq!(code, Some(0), "{shell}");
        for command in Cli::command().get_subcommands() {
            assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
                assert!(script.contains(flag), "{shell}: {flag}");
            }
        }
        let completes_values = !["elvish", "powershell"].contains(&shell);
        assert!(!completes_values || script.contains("sarif"), "{shell} completes values");
    }
    let (code, _, said) = kubectl_gpt(&["completions", "csh"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("possible values: bash"), "{said}");
}

#[cfg(unix)]
#[test]
fn bash_completion_works() {
    let (_, script, _) = kubectl_gpt(&["completions", "bash"]);
    let complete = format!(
        "{script}\nCOMP_WORDS=(kubectl-gpt analyze --output-f); COMP_CWORD=2; _kubectl__gpt kubectl-gpt --output-f analyze\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut bash =
        match Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(bash) => bash,
            Err(error) => panic!("bash is needed to try what is made for it: {error}"),
        };
    bash.stdin.take().unwrap().write_all(complete.as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--output-file\n", "{output:?}");
}

#[test]
fn manual_pages_include_all_flags() {
    let (code, page, _) = kubectl_gpt(&["man"]);
    assert_eq!(code, Some(0));
    assert!(page.starts_with(".ie ") && page.contains(".TH kubectl-gpt 1"), "{page}");
    assert!(page.contains("kubectl\\-gpt\\-analyze(1)"), "{page}");
    for command in Cli::command().get_subcommands() {
        let (code, page, _) = kubectl_gpt(&["man", command.get_name()]);
        assert_eq!(code, Some(0), "{}", command.get_name());
        assert!(page.contains(&format!(".TH kubectl-gpt-{} 1", command.get_name())), "{page}");
        for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(page.contains(&flag.replace('-', "\\-")), "{}: {flag}", command.get_name());
        }
    }
    let (code, _, said) = kubectl_gpt(&["man", "analyse"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("unknown command \"analyse\", expected one of analyze"), "{said}");
}
