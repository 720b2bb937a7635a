//! Parses a Corefile, the configuration of CoreDNS, as CoreDNS does: server blocks of plugins, each with arguments and an
//! optional block of its own; snippets; comments; quotes.
//! Source: <https://coredns.io/manual/configuration/>

use std::collections::BTreeMap;

/// The plugins of CoreDNS itself, past and present. Custom builds may have more.
pub const PLUGINS: [&str; 62] = [
    "acl",
    "any",
    "auto",
    "autopath",
    "azure",
    "bind",
    "bufsize",
    "cache",
    "cancel",
    "chaos",
    "clouddns",
    "debug",
    "dns64",
    "dnssec",
    "dnstap",
    "erratic",
    "errors",
    "etcd",
    "fanout",
    "federation",
    "file",
    "forward",
    "geoip",
    "grpc",
    "grpc_server",
    "header",
    "health",
    "hosts",
    "https",
    "https3",
    "k8s_external",
    "kubernetes",
    "loadbalance",
    "local",
    "log",
    "loop",
    "metadata",
    "minimal",
    "multisocket",
    "nomad",
    "nsid",
    "on",
    "pprof",
    "prometheus",
    "quic",
    "ready",
    "reload",
    "rewrite",
    "root",
    "route53",
    "secondary",
    "sign",
    "shutdown",
    "startup",
    "template",
    "timeouts",
    "tls",
    "trace",
    "transfer",
    "tsig",
    "view",
    "whoami",
];

/// More imports than any real Corefile has; CoreDNS has a limit too.
const MAX_IMPORTS: usize = 1000;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Corefile {
    pub servers: Vec<Server>,
    /// Whether it imports files, whose contents are unknown.
    pub imports_files: bool,
    /// The files that it imports: `custom/*.server`.
    pub imports: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// The zones, with their ports: `.:53`, `example.org`.
    pub keys: Vec<String>,
    pub plugins: Vec<Plugin>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Plugin {
    pub name: String,
    pub arguments: Vec<String>,
    pub line: usize,
}

/// A mistake that keeps CoreDNS from starting.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: usize,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Parses a Corefile.
pub fn parse(text: &str) -> Result<Corefile, SyntaxError> {
    let mut parser = Parser { tokens: tokens(text), ..Parser::default() };
    parser.tokens.reverse();
    parser.file()?;
    Ok(parser.corefile)
}

/// Words and quoted strings. `#` starts a comment where a word could start.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    let mut line = 1;
    while let Some(character) = characters.next() {
        match character {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => while characters.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                let (mut quoted, started) = (String::new(), line);
                while let Some(c) = characters.next() {
                    match c {
                        '"' => break,
                        '\\' if characters.peek() == Some(&'"') => quoted.extend(characters.next()),
                        c => {
                            line += usize::from(c == '\n');
                            quoted.push(c);
                        }
                    }
                }
                tokens.push(Token { text: quoted, line: started });
            }
            first => {
                let mut word = String::from(first);
                while let Some(c) = characters.next_if(|c| !c.is_whitespace()) {
                    word.push(c);
                }
                tokens.push(Token { text: word, line });
            }
        }
    }
    tokens
}

#[derive(Default)]
struct Parser {
    /// The remaining tokens, in reverse order.
    tokens: Vec<Token>,
    snippets: BTreeMap<String, Vec<Token>>,
    imports: usize,
    corefile: Corefile,
}

impl Parser {
    fn file(&mut self) -> Result<(), SyntaxError> {
        while let Some(first) = self.tokens.pop() {
            if first.text == "import" {
                self.import(first.line)?;
                continue;
            }
            let keys = self.keys(first)?;
            let opened = self.tokens.last().is_some_and(|token| token.text == "{");
            let line = keys.last().map_or(0, |key| key.line);
            if opened {
                self.tokens.pop();
            }
            let snippet = match keys.as_slice() {
                [only] => only.text.strip_prefix('(').and_then(|name| name.strip_suffix(')')),
                _ => None,
            };
            if let Some(name) = snippet {
                let body = self.until_closed(line)?;
                self.snippets.insert(name.to_string(), body);
            } else {
                let plugins = self.plugins(opened, line)?;
                let keys = keys.into_iter().map(|key| key.text).collect();
                self.corefile.servers.push(Server { keys, plugins });
            }
        }
        Ok(())
    }

    /// The zones of a server: the words of one line, continued after a comma.
    fn keys(&mut self, first: Token) -> Result<Vec<Token>, SyntaxError> {
        let mut keys = vec![first];
        while let (Some(last), Some(next)) = (keys.last_mut(), self.tokens.last()) {
            let is_continued = last.text.ends_with(',');
            if next.text == "{" || (!is_continued && next.line != last.line) {
                break;
            }
            last.text.truncate(last.text.len() - usize::from(is_continued));
            keys.extend(self.tokens.pop());
        }
        match keys.iter().find(|key| key.text.len() > 1 && key.text.ends_with('{')) {
            Some(key) => Err(error(key.line, format!("missing space before the brace in {}", key.text))),
            None => Ok(keys),
        }
    }

    fn plugins(&mut self, opened: bool, line: usize) -> Result<Vec<Plugin>, SyntaxError> {
        let mut plugins = Vec::new();
        while let Some(token) = self.tokens.pop() {
            match token.text.as_str() {
                "}" => return Ok(plugins),
                "import" => self.import(token.line)?,
                _ => plugins.push(self.plugin(token)?),
            }
        }
        if opened { Err(unclosed(line)) } else { Ok(plugins) }
    }

    /// A plugin with the rest of its line and the block that the line opens, if any.
    fn plugin(&mut self, name: Token) -> Result<Plugin, SyntaxError> {
        let mut arguments = Vec::new();
        let (mut depth, mut line) = (0usize, name.line);
        while let Some(next) = self.tokens.last() {
            let is_new_line = next.line != line;
            if depth == 0 && (is_new_line || next.text == "}") && next.text != "{" {
                break;
            }
            line = next.line;
            match next.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                word if depth == 0 => arguments.push(word.to_string()),
                _ => {}
            }
            self.tokens.pop();
        }
        match depth {
            0 => Ok(Plugin { name: name.text, arguments, line: name.line }),
            _ => Err(unclosed(name.line)),
        }
    }

    /// The tokens of a block up to its closing brace.
    fn until_closed(&mut self, line: usize) -> Result<Vec<Token>, SyntaxError> {
        let (mut body, mut depth) = (Vec::new(), 1);
        while let Some(token) = self.tokens.pop() {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(body);
            }
            body.push(token);
        }
        Err(unclosed(line))
    }

    /// Expands a snippet. Files are not available here.
    fn import(&mut self, line: usize) -> Result<(), SyntaxError> {
        let Some(name) = self.tokens.pop_if(|token| token.line == line) else {
            return Err(error(line, "import has no argument".to_string()));
        };
        self.imports += 1;
        match self.snippets.get(&name.text) {
            Some(_) if self.imports > MAX_IMPORTS => {
                Err(error(line, "snippets import each other in a loop".to_string()))
            }
            Some(body) => {
                self.tokens.extend(body.iter().rev().cloned());
                Ok(())
            }
            None => {
                self.corefile.imports_files = true;
                self.corefile.imports.push(name.text);
                Ok(())
            }
        }
    }
}

fn error(line: usize, message: String) -> SyntaxError {
    SyntaxError { line, message }
}

fn unclosed(line: usize) -> SyntaxError {
    error(line, "the block that starts here is not closed".to_string())
}

#[cfg(test)]
mod tests {
    use super::{Corefile, parse};

    fn plugins(file: &Corefile) -> Vec<String> {
        let plugins = file.servers.iter().flat_map(|server| &server.plugins);
        plugins.map(|p| format!("{}:{} {}", p.line, p.name, p.arguments.join(" ")).trim_end().to_string()).collect()
    }

    #[test]
    fn reads_blocks_comments_and_quotes() {
        let file = parse(
            ".:53, example.org {\n  errors # all\n  kubernetes cluster.local {\n    pods insecure\n  }\n  log \"a b\"\n}\n",
        )
        .unwrap();
        assert_eq!(file.servers[0].keys, [".:53", "example.org"]);
        assert_eq!(plugins(&file), ["2:errors", "3:kubernetes cluster.local", "6:log a b"]);
    }

    #[test]
    fn expands_snippets() {
        let file = parse("(common) {\n errors\n}\n.:53 {\n import common\n import custom/*.override\n cache {$TTL}\n}")
            .unwrap();
        assert_eq!(plugins(&file), ["2:errors", "7:cache {$TTL}"]);
        assert!(file.imports_files);
    }

    #[test]
    fn reports_the_line_of_an_unclosed_block() {
        assert_eq!(parse(".:53 {\n kubernetes {\n  pods insecure\n cache\n}\n").unwrap_err().line, 1);
        assert_eq!(parse(".:53 {\n cache {\n").unwrap_err().line, 2);
        assert_eq!(parse("# all\n\n.:53{\n cache\n}").unwrap_err().line, 3);
        assert!(parse("(a) {\n import a\n}\n. {\n import a\n}").is_err());
        assert_eq!(parse("").unwrap(), Corefile::default());
    }

    #[test]
    fn a_single_server_needs_no_braces() {
        let file = parse(".:53\nerrors\ncache 30").unwrap();
        assert_eq!(plugins(&file), ["2:errors", "3:cache 30"]);
    }
}
