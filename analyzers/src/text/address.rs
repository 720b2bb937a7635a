//! Addresses in text: the hosts and ports in an environment variable, a command line or a configuration file. Only the
//! address of a value is kept, because the rest may be a password.

use std::fmt;

/// Longer than any text that contains addresses.
const MAX_LENGTH: usize = 64 * 1024;
/// More than any program connects to.
const MAX_ADDRESSES: usize = 200;

/// `db:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: Option<i32>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// The addresses in the value of a variable. A bare host is an address if the name of the variable suggests it; its port
/// is then in the related variable (`DB_HOST`, `DB_PORT`), which `related` finds by its case-insensitive name.
pub fn addresses_of<'v>(name: &str, value: &str, related: impl Fn(&str) -> Option<&'v str>) -> Vec<Address> {
    let found = addresses_in(value);
    if !found.is_empty() {
        return found;
    }
    let name = name.to_ascii_uppercase();
    let Some(stem) = ["HOSTNAME", "HOST", "SERVER", "ADDRESS", "ADDR", "SERVICE", "ENDPOINT"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
    else {
        return Vec::new();
    };
    if !is_host(value) {
        return Vec::new();
    }
    let port = related(&format!("{stem}PORT")).and_then(|port| port.parse().ok());
    vec![Address { host: value.to_string(), port }]
}

/// The addresses in any text: every URL and every `host:port`, except in comment lines.
pub fn addresses_in(text: &str) -> Vec<Address> {
    if text.len() > MAX_LENGTH {
        return Vec::new();
    }
    let separates = |c: char| c.is_whitespace() || "\"'`,;|()<>[]{}=&".contains(c);
    let is_comment = |line: &str| ["#", "//", ";"].iter().any(|mark| line.trim_start().starts_with(mark));
    let lines = text.lines().filter(|line| !is_comment(line));
    lines.flat_map(|line| line.split(separates)).filter_map(address).take(MAX_ADDRESSES).collect()
}

fn address(word: &str) -> Option<Address> {
    let (scheme, rest) = match word.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.rsplit(':').next().unwrap_or(scheme)), rest),
        None => (None, word),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok()?)),
        None => (authority, None),
    };
    if !is_host(host) {
        return None;
    }
    let port = port.map(i32::from).filter(|port| *port > 0);
    let host = host.to_string();
    match scheme {
        Some(scheme) => Some(Address { host, port: port.or_else(|| usual_port(scheme)) }),
        None => Some(Address { host, port: Some(port?) }),
    }
}
fn usual_port(scheme: &str) -> Option<i32> {
    Some(match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        "postgres" | "postgresql" => 5432,
        "mysql" | "mariadb" => 3306,
        "redis" | "rediss" => 6379,
        "amqp" => 5672,
        "mongodb" => 27017,
        "nats" => 4222,
        _ => return None,
    })
}

/// Whether a text is a valid DNS name.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 254
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        && text.chars().any(|c| c.is_ascii_lowercase())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::{addresses_in, addresses_of};

    #[test]
    fn a_bare_host_counts_by_the_name_of_its_variable() {
        let related = |name: &str| (name == "DB_PORT").then_some("5432");
        let found = |name: &str| addresses_of(name, "db", related).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("DB_HOST"), ["db:5432"]);
        assert_eq!(found("db_host"), ["db:5432"]);
        assert_eq!(found("OTHER_HOST"), ["db"]);
        assert_eq!(found("DB_NAME"), [""; 0]);
    }

    #[test]
    fn addresses() {
        let found = |text: &str| {
            let found = addresses_in(text).into_iter();
            found.map(|address| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("http://api.shop.svc:8080/v1"), ["api.shop.svc:8080"]);
        assert_eq!(found("https://api"), ["api:443"]);
        assert_eq!(found("jdbc:postgresql://u:p@db:5433/shop?x=y"), ["db:5433"]);
        assert_eq!(found("while true; do wget -qO- http://back:80/; done"), ["back:80"]);
        assert_eq!(found("kafka-0:9092,kafka-1:9092"), ["kafka-0:9092", "kafka-1:9092"]);
        assert_eq!(found("0.0.0.0:8080 :8080 plain true"), [""; 0]);
        assert_eq!(found("http://$(HOST):80"), [""; 0]);
        assert_eq!(found("# old: http://legacy\n  // http://older\nproxy_pass http://back:80;"), ["back:80"]);
    }
}
