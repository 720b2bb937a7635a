//! Descriptions of container terminations: exit codes, signals, and the errors of the container runtime.

use crate::snapshot::model::ContainerStateTerminated;
use crate::text::words::{plain, shorten};

/// Describes a termination: `exit code 1 (application error)`, `exit code 137 (SIGKILL)`, `OOMKilled (exit code 137)`.
pub(crate) fn describe(end: &ContainerStateTerminated) -> String {
    let code = end.exit_code;
    if end.reason == "OOMKilled" {
        return format!("OOMKilled (exit code {code})");
    }
    if end.exit_code == 0 && end.signal > 0 {
        return format!("signal {}", signal(end.signal).unwrap_or("(unknown)"));
    }
    format!("exit code {code} ({})", meaning(code, &end.reason))
}

/// The meaning of an exit code by the conventions of shells and container runtimes.
pub(crate) fn meaning(code: i32, reason: &str) -> String {
    match code {
        0 => "completed".into(),
        1 => "application error".into(),
        2 => "incorrect usage or Go panic".into(),
        126 => "command not executable".into(),
        127 => "command not found".into(),
        128 if matches!(reason, "StartError" | "ContainerCannotRun") => "could not be started".into(),
        137 if reason == "ContainerStatusUnknown" => "termination not observed".into(),
        // Kubernetes reports 255 with reason Unknown if the runtime lost the container, as after a reboot.
        255 if reason == "Unknown" => "lost by the container runtime".into(),
        134 => "SIGABRT: aborted".into(),
        137 => "SIGKILL".into(),
        139 => "SIGSEGV: segmentation fault".into(),
        143 => "SIGTERM: termination requested".into(),
        129..=192 => signal(code - 128).map_or_else(|| "terminated by a signal".into(), String::from),
        _ => "application error".into(),
    }
}

/// The signals that terminate containers (Linux numbers on x86 and ARM).
fn signal(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL: CPU instruction not supported by the node",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS: system call blocked by seccomp",
        _ => return None,
    })
}

/// The innermost error of a runtime (containerd, CRI-O, runc, crun, Docker) that cannot start a container.
pub(crate) fn runtime_error(message: &str) -> String {
    let message = plain(message).replace("\\\"", "\"");
    let core = innermost(&message);
    let lower = core.to_lowercase();
    let shown = match (program(core), lower) {
        (_, lower) if lower.contains("no command specified") => {
            "no command specified in the image or the container".to_string()
        }
        (_, lower) if lower.contains("chdir to cwd") => match quoted(core) {
            Some(folder) => format!("working directory {folder} does not exist"),
            None => core.to_string(),
        },
        (Some(program), lower) if lower.contains("executable file") && lower.contains("not found") => {
            format!("executable not found in $PATH: {program}")
        }
        (Some(program), lower) if lower.contains("no such file or directory") => format!("no such file: {program}"),
        (Some(program), lower) if lower.contains("permission denied") => {
            format!("permission denied: {program} is not executable")
        }
        (Some(program), lower) if lower.contains("is a directory") => format!("{program} is a directory"),
        (Some(program), lower) if lower.contains("exec format error") => {
            format!("exec format error: {program} is built for another CPU architecture or is a script without #!")
        }
        _ => core.to_string(),
    };
    shorten(&shown, 200)
}

/// Strips the prefixes and suffixes that the layers of a runtime add to the error.
fn innermost(message: &str) -> &str {
    const LAYERS: &[&str] = &[
        "failed to create containerd task: ",
        "failed to create shim task: ",
        "failed to start containerd task ",
        "failed to generate spec: ",
        "OCI runtime create failed: ",
        "OCI runtime start failed: ",
        "runc create failed: ",
        "crun: ",
        "unable to start container process: ",
        "starting container process caused: ",
        "starting container process caused \"",
        "container create failed: ",
        "error during container init: ",
        "level=error msg=\"",
    ];
    let from = LAYERS.iter().filter_map(|layer| message.rfind(layer).map(|at| at + layer.len())).max().unwrap_or(0);
    let core = message.get(from..).unwrap_or(message).trim();
    let core = core.strip_suffix(": unknown").unwrap_or(core);
    if core.is_empty() { message } else { core }
}

/// The executable in an error: `exec: "/bin/pyhton": …`, ``executable file `pyhton` not found``, `exec /bin/x: …`.
pub(crate) fn program(core: &str) -> Option<&str> {
    if let Some(at) = core.find("exec: ") {
        return quoted(&core[at..]);
    }
    if core.contains("executable file") {
        return quoted(core);
    }
    let after = &core[core.find("exec ")? + "exec ".len()..];
    let program = after.split([':', '\'', '"']).find(|part| !part.is_empty())?.trim();
    (program.starts_with('/') || program.starts_with('.')).then_some(program)
}

/// The first text in quotes of any kind.
fn quoted(text: &str) -> Option<&str> {
    let open = text.find(['"', '`', '\''])?;
    let rest = text.get(open + 1..)?;
    let close = rest.find(['"', '`', '\''])?;
    let inside = &rest[..close];
    (!inside.is_empty()).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_terminations() {
        let end = |exit_code, reason: &str| {
            describe(&ContainerStateTerminated { exit_code, reason: reason.into(), ..Default::default() })
        };
        assert_eq!(end(1, "Error"), "exit code 1 (application error)");
        assert_eq!(end(0, "Completed"), "exit code 0 (completed)");
        assert_eq!(end(137, "Error"), "exit code 137 (SIGKILL)");
        assert_eq!(end(137, "OOMKilled"), "OOMKilled (exit code 137)");
        assert_eq!(end(139, "Error"), "exit code 139 (SIGSEGV: segmentation fault)");
        assert_eq!(end(128, "StartError"), "exit code 128 (could not be started)");
        assert_eq!(end(255, "Unknown"), "exit code 255 (lost by the container runtime)");
        assert_eq!(end(255, "Error"), "exit code 255 (application error)");
        assert_eq!(end(180, "Error"), "exit code 180 (terminated by a signal)");
        assert_eq!(end(i32::MIN, ""), format!("exit code {} (application error)", i32::MIN));
    }

    #[test]
    fn runtime_errors_are_reduced_to_the_innermost_error() {
        for (message, core) in [
            (
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create \
                 failed: unable to start container process: exec: \"/bin/pyhton\": stat /bin/pyhton: no such file or \
                 directory: unknown",
                "no such file: /bin/pyhton",
            ),
            (
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create \
                 failed: unable to start container process: error during container init: exec: \"serve\": executable \
                 file not found in $PATH: unknown",
                "executable not found in $PATH: serve",
            ),
            (
                "container create failed: executable file `pyhton` not found in $PATH: No such file or directory",
                "executable not found in $PATH: pyhton",
            ),
            (
                "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \
                 \"/app/run.sh\": permission denied: unknown",
                "permission denied: /app/run.sh is not executable",
            ),
            (
                "container create failed: time=\"2026-11-21T12:00:00Z\" level=error msg=\"runc create failed: unable \
                 to start container process: exec: \\\"nope\\\": executable file not found in $PATH\"",
                "executable not found in $PATH: nope",
            ),
            (
                "OCI runtime create failed: runc create failed: unable to start container process: chdir to cwd \
                 (\"/srv\") set in config.json failed: no such file or directory: unknown",
                "working directory /srv does not exist",
            ),
            (
                "failed to generate container \"a1\" spec: failed to generate spec: no command specified",
                "no command specified in the image or the container",
            ),
            ("context deadline exceeded", "context deadline exceeded"),
            ("", ""),
        ] {
            assert_eq!(runtime_error(message), core);
        }
        assert_eq!(
            runtime_error("exec /usr/bin/app: exec format error"),
            "exec format error: /usr/bin/app is built for another CPU architecture or is a script without #!"
        );
    }
}
