//! What the error messages of programs name: hosts that do not resolve, addresses that do not answer, kinds that are not
//! served. Programs in Go, Java, Python, Node.js, nginx and shell word them differently.

/// An operand of an error message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Symptom {
    /// A name that the DNS server does not know, or (`answered` is false) a lookup without an answer.
    Lookup { host: String, server: Option<String>, answered: bool },
    /// A connection that failed. Hosts are names or addresses as in the message; not all of them are hosts.
    Connect { targets: Vec<Target>, failure: Failure },
    /// A certificate that is not valid for the host.
    WrongHost { host: String, valid_for: Vec<String> },
    /// A certificate without the address by which a server is reached.
    NoAddressInCertificate,
    /// A kind of the API that the API server does not serve.
    NotServed { kind: String, version: String },
    /// A kind of a configuration file that the program does not know.
    NotRegistered { kind: String, version: String },
    /// A server refused a user or password.
    Credentials,
    /// A value that cannot be sent as an HTTP header.
    HeaderValue,
}

/// `db:5432`, `10.96.0.1:443`, or a host alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub host: String,
    pub port: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The other end, or its node, answered that nothing listens there.
    Refused,
    /// There was no answer.
    Timeout,
    /// The connection was opened, but its first large packets were not answered.
    Handshake,
    /// The program only reports that it waits.
    Waits,
}

/// What the line of a log names.
pub(crate) fn symptoms(line: &str) -> Vec<Symptom> {
    let line = line.replace('\\', "");
    let lower = line.to_lowercase();
    let mut found = Vec::new();
    if let Some(lookup) = lookup(&line, &lower) {
        found.push(lookup);
    } else if let Some(failure) = failure(&lower) {
        let targets = targets(&line);
        if !targets.is_empty() {
            found.push(Symptom::Connect { targets, failure });
        }
    }
    found.extend(wrong_host(&line));
    if lower.contains("doesn't contain any ip sans") {
        found.push(Symptom::NoAddressInCertificate);
    }
    if let Some((kind, version)) = quoted_pair(&line, "no matches for kind ", " in version ") {
        found.push(Symptom::NotServed { kind, version });
    }
    if let Some((kind, version)) = quoted_pair(&line, "no kind ", " is registered for version ") {
        found.push(Symptom::NotRegistered { kind, version });
    }
    if is_refused_login(&lower) {
        found.push(Symptom::Credentials);
    }
    if is_bad_header(&lower) {
        found.push(Symptom::HeaderValue);
    }
    found
}

/// Phrases before a host that does not resolve, each with whether the server answered.
const LOOKUPS: &[&str] = &[
    "UnknownHostException: ",
    "getaddrinfo ENOTFOUND ",
    "getaddrinfo EAI_AGAIN ",
    "could not translate host name ",
    "bad address ",
    "Could not resolve host: ",
    "host not found in upstream ",
    "Failed to resolve ",
    "can't find ",
    "Unknown MySQL server host ",
    "could not resolve ",
];

fn lookup(line: &str, lower: &str) -> Option<Symptom> {
    // Go: `lookup db on 10.96.0.10:53: no such host`.
    if let Some((_, rest)) = line.split_once("lookup ")
        && (lower.contains("no such host") || lower.contains("server misbehaving") || lower.contains("i/o timeout"))
    {
        let mut words = rest.split([' ', ':']);
        let host = clean_host(words.next()?)?;
        let server = rest.split_once(" on ").filter(|(host, _)| !host.contains(' '));
        let server = server.map(|(_, rest)| server_of(rest.split(' ').next().unwrap_or_default()));
        return Some(Symptom::Lookup { host, server, answered: lower.contains("no such host") });
    }
    let (before, rest) = LOOKUPS.iter().find_map(|phrase| Some((*phrase, line.split_once(phrase)?.1)))?;
    let word = rest.trim_start_matches(['"', '\'', '`']);
    let host = clean_host(word.split([' ', '"', '\'', '`', ':', ',', ';', ')', '/']).next()?)?;
    Some(Symptom::Lookup { host, server: None, answered: !before.contains("EAI_AGAIN") })
}

/// `10.96.0.10` of `10.96.0.10:53:`, `fd00::a` of `[fd00::a]:53:`.
fn server_of(text: &str) -> String {
    let text = text.trim_end_matches(':');
    match text.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default().to_string(),
        None => text.rsplit_once(':').map_or(text, |(server, _)| server).to_string(),
    }
}

/// A DNS name in lower case.
fn clean_host(text: &str) -> Option<String> {
    let host = text.trim_end_matches('.').to_ascii_lowercase();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_valid = (1..254).contains(&host.len()) && host.chars().all(is_name) && host.chars().any(char::is_alphabetic);
    is_valid.then_some(host)
}

fn failure(lower: &str) -> Option<Failure> {
    let has_any = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    if has_any(&["handshake timeout", "handshake timed out", "handshake operation timed out"]) {
        return Some(Failure::Handshake);
    }
    if has_any(&[
        "refused",
        "no route to host",
        "ehostunreach",
        "host is unreachable",
        "connection reset",
        "econnreset",
    ]) {
        return Some(Failure::Refused);
    }
    let timeouts = [
        "i/o timeout",
        "timed out",
        "etimedout",
        "timeout",
        "deadline exceeded",
        "network is unreachable",
        "connect failed",
        "failed to connect",
        "can't connect",
        "cannot connect",
        "could not connect",
        "unable to connect",
        "connection failed",
    ];
    if has_any(&timeouts) {
        return Some(Failure::Timeout);
    }
    has_any(&["waiting for", "wait for", "sleeping", "not yet available", "unavailable", "retrying"])
        .then_some(Failure::Waits)
}

/// Every `host:port`, URL, quoted word and word after "for" of a message; the caller knows which of them exist.
fn targets(line: &str) -> Vec<Target> {
    let separates = |c: char| c.is_whitespace() || "\"'`,;|()<>{}=&".contains(c);
    let words = line.split(separates).flat_map(|word| word.split("->"));
    let mut found: Vec<Target> = Vec::new();
    let mut add = |word: &str, bare: bool| {
        let is_address = |target: &Target| target.port.is_some() || target.host.parse::<std::net::IpAddr>().is_ok();
        let target = target(word).filter(|target| bare || word.contains("://") || is_address(target));
        found.extend(target.filter(|target| !found.contains(target)));
    };
    words.for_each(|word| add(word, false));
    let quoted = ['"', '\''].into_iter().flat_map(|quote| line.split(quote).skip(1).step_by(2));
    let awaited = line.split_once("for ").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
    quoted.chain(awaited).for_each(|word| add(word, true));
    // `connection to server at "db" (10.96.1.2), port 5432 failed`.
    let port = line.split_once(", port ").map(|(_, rest)| rest);
    let port = port.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    for target in found.iter_mut().filter(|target| target.port.is_none()) {
        target.port = port;
    }
    found
}

fn target(word: &str) -> Option<Target> {
    let rest = word.split_once("://").map_or(word, |(_, rest)| rest);
    let authority = rest.split(['?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let is_url = word.contains("://");
    // Java: `db/10.96.1.2:5432`.
    let authority = match authority.split_once('/') {
        Some((host, address)) if !is_url && starts_with_address(address) && clean_host(host).is_some() => address,
        Some((host, _)) => host,
        None => authority,
    };
    let authority = authority.trim_end_matches([':', '.', ']']).trim_start_matches('[');
    if authority.parse::<std::net::IpAddr>().is_ok() {
        return Some(Target { host: authority.to_string(), port: None });
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host.trim_end_matches(']'), Some(i32::from(port.parse::<u16>().ok()?))),
        None => (authority, None),
    };
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    if is_address || clean_host(host).is_some_and(|name| name == host) {
        return Some(Target { host: host.to_string(), port });
    }
    None
}

fn starts_with_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, _)| host.parse::<std::net::IpAddr>().is_ok())
}

/// `certificate is valid for a, b, not c`, and the same of Java, Node.js, Python and curl.
fn wrong_host(line: &str) -> Option<Symptom> {
    if let Some((_, rest)) = line.split_once("certificate is valid for ")
        && let Some((valid, host)) = rest.split_once(", not ")
    {
        let host = clean_host(host.split([' ', '"', '\'']).next()?)?;
        return Some(Symptom::WrongHost { host, valid_for: valid.split(", ").map(str::to_string).collect() });
    }
    const PHRASES: &[&str] = &[
        "No subject alternative DNS name matching ",
        "certificate's altnames: Host: ",
        "certificate is not valid for ",
        "does not match target host name ",
        "matches target host name ",
    ];
    let rest = PHRASES.iter().find_map(|phrase| Some(line.split_once(phrase)?.1))?;
    let host = rest.trim_start_matches(['"', '\'']).split([' ', '"', '\'']).next()?;
    Some(Symptom::WrongHost { host: clean_host(host)?, valid_for: Vec::new() })
}

/// `A "x" B "y"`.
fn quoted_pair(line: &str, first: &str, second: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once(&format!("{first}\""))?;
    let (one, rest) = rest.split_once('"')?;
    let (two, _) = rest.strip_prefix(&format!("{second}\""))?.split_once('"')?;
    Some((one.to_string(), two.to_string()))
}

fn is_refused_login(lower: &str) -> bool {
    const PHRASES: &[&str] = &[
        "password authentication failed",
        "28p01",
        "access denied for user",
        "wrongpass",
        "invalid username-password pair",
        "login failed for user",
        "authentication failed",
        "access_refused",
        "failed sasl auth",
        "bad auth",
    ];
    PHRASES.iter().any(|phrase| lower.contains(phrase))
}

fn is_bad_header(lower: &str) -> bool {
    const PHRASES: &[&str] = &[
        "invalid header field value",
        "invalid character in header content",
        "return character(s) in header value",
        "illegal character(s) in message header value",
        "illegal header value",
        "invalid header value",
        "failed to parse header value",
    ];
    PHRASES.iter().any(|phrase| lower.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::{Failure, Symptom, Target, symptoms};

    fn lookup(line: &str) -> Option<(String, Option<String>, bool)> {
        symptoms(line).into_iter().find_map(|symptom| match symptom {
            Symptom::Lookup { host, server, answered } => Some((host, server, answered)),
            _ => None,
        })
    }

    fn connect(line: &str) -> Option<(Vec<String>, Failure)> {
        symptoms(line).into_iter().find_map(|symptom| match symptom {
            Symptom::Connect { targets, failure } => {
                let text = |t: &Target| t.port.map_or(t.host.clone(), |port| format!("{}:{port}", t.host));
                Some((targets.iter().map(text).collect(), failure))
            }
            _ => None,
        })
    }

    #[test]
    fn names_that_do_not_resolve() {
        let of = |line: &str| lookup(line).unwrap_or_default().0;
        let go = "Post \"http://a.b.svc:80/\": dial tcp: lookup a.b.svc on 10.96.0.10:53: no such host";
        assert_eq!(lookup(go), Some(("a.b.svc".to_string(), Some("10.96.0.10".to_string()), true)));
        let slow = "lookup a on [fd00::a]:53: read udp 10.0.0.3:1->10.0.0.9:53: i/o timeout";
        assert_eq!(lookup(slow), Some(("a".to_string(), Some("fd00::a".to_string()), false)));
        assert_eq!(of("Caused by: java.net.UnknownHostException: orders-db: Name or service not known"), "orders-db");
        assert_eq!(of("Error: getaddrinfo ENOTFOUND db.shop"), "db.shop");
        assert_eq!(of("could not translate host name \"db\" to address: Name or service not known"), "db");
        assert_eq!(of("nc: bad address 'catalog-db'"), "catalog-db");
        assert_eq!(of("[emerg] 1#1: host not found in upstream \"api:8080\" in /etc/nginx/x.conf:3"), "api");
        assert_eq!(of("NameResolutionError(\"... Failed to resolve 'db' ([Errno -2] ...)\")"), "db");
        assert_eq!(lookup("lookup of the table failed"), None);
    }

    #[test]
    fn connections_that_fail() {
        let of = |line: &str| connect(line).unwrap_or((Vec::new(), Failure::Waits));
        assert_eq!(of("connect ECONNREFUSED 10.96.51.154:8080").0, ["10.96.51.154:8080"]);
        let go = "Get \"http://pricing:8080/x\": dial tcp 10.96.1.2:8080: connect: no route to host";
        assert_eq!(of(go), (vec!["pricing:8080".to_string(), "10.96.1.2:8080".to_string()], Failure::Refused));
        assert_eq!(of("Connection refused: db/10.96.1.2:5432").0, ["10.96.1.2:5432"]);
        let psql = "connection to server at \"10.96.44.63\", port 5432 failed: timeout";
        assert_eq!(of(psql), (vec!["10.96.44.63:5432".to_string()], Failure::Timeout));
        assert_eq!(of("Get \"https://search/v2\": net/http: TLS handshake timeout").1, Failure::Handshake);
        assert_eq!(of("waiting for catalog-db:5432").1, Failure::Waits);
        assert_eq!(connect("ready"), None);
    }

    #[test]
    fn kinds_and_certificates() {
        assert_eq!(
            symptoms(r#"error="no matches for kind \"TLSRoute\" in version \"g/v1alpha2\"""#),
            [Symptom::NotServed { kind: "TLSRoute".to_string(), version: "g/v1alpha2".to_string() }]
        );
        assert_eq!(
            symptoms("x509: certificate is valid for a, b, not c.example"),
            [Symptom::WrongHost { host: "c.example".to_string(), valid_for: vec!["a".to_string(), "b".to_string()] }]
        );
        assert_eq!(symptoms("net/http: invalid header field value for \"Authorization\""), [Symptom::HeaderValue]);
    }
}
