//! Shell commands.

/// A kubectl command whose arguments are quoted for a POSIX shell where necessary.
///
/// ```
/// # use kubectl_gpt_analyzers::kubectl;
/// assert_eq!(kubectl(["-n", "shop", "get", "pods"]), "kubectl -n shop get pods");
/// assert_eq!(kubectl(["get", "pod", "a;b'c"]), r#"kubectl get pod 'a;b'\''c'"#);
/// ```
pub fn kubectl<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    let mut command = String::from("kubectl");
    for argument in arguments {
        command.push(' ');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            command.push_str(argument);
        } else {
            command.push('\'');
            command.push_str(&argument.replace('\'', r"'\''"));
            command.push('\'');
        }
    }
    command
}
