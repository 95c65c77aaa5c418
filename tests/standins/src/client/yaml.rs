//! The part of YAML that `pmm-agent.yaml` uses: nested maps of scalars.

/// A map or a scalar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Keys in file order.
    Map(Vec<(String, Self)>),
    /// Text with its quotes removed.
    Scalar(String),
}

impl Node {
    /// The value of a key of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            Self::Scalar(_) => None,
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(s) => Some(s),
            Self::Map(_) => None,
        }
    }
}

/// Parses a document; an empty one is an empty map.
pub fn parse(bytes: &[u8]) -> Result<Node, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid UTF-8".to_string())?;
    let mut lines = Vec::new();
    for (number, raw) in text.lines().enumerate() {
        let trimmed = raw.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') || raw.trim_end() == "---" {
            continue;
        }
        if raw.starts_with('\t') || raw.contains('\0') {
            return Err(format!(
                "yaml: line {}: found character that cannot start any token",
                number + 1
            ));
        }
        lines.push((number + 1, raw.len() - trimmed.len(), trimmed.trim_end()));
    }
    let mut at = 0;
    let node = map(&lines, &mut at, 0)?;
    match lines.get(at) {
        Some((number, _, _)) => Err(format!("yaml: line {number}: did not find expected key")),
        None => Ok(node),
    }
}

fn map(lines: &[(usize, usize, &str)], at: &mut usize, indent: usize) -> Result<Node, String> {
    let mut entries = Vec::new();
    while let Some(&(number, depth, line)) = lines.get(*at) {
        if depth != indent {
            break;
        }
        let split = line
            .find(": ")
            .or_else(|| line.ends_with(':').then(|| line.len() - 1))
            .ok_or_else(|| format!("yaml: line {number}: could not find expected ':'"))?;
        let key = unquote(line[..split].trim()).map_err(|e| format!("yaml: line {number}: {e}"))?;
        let rest = line[split + 1..].trim();
        *at += 1;
        let value = if rest.is_empty() {
            match lines.get(*at) {
                Some(&(_, deeper, _)) if deeper > indent => map(lines, at, deeper)?,
                _ => Node::Scalar(String::new()),
            }
        } else if rest == "{}" {
            Node::Map(Vec::new())
        } else {
            Node::Scalar(unquote(strip_comment(rest)).map_err(|e| format!("yaml: line {number}: {e}"))?)
        };
        entries.push((key, value));
    }
    Ok(Node::Map(entries))
}

fn strip_comment(text: &str) -> &str {
    if text.starts_with(['"', '\'']) {
        return text;
    }
    text.find(" #").map_or(text, |at| text[..at].trim_end())
}

fn unquote(text: &str) -> Result<String, String> {
    if let Some(inner) = text.strip_prefix('\'') {
        let inner = inner.strip_suffix('\'').ok_or("found unexpected end of stream")?;
        return Ok(inner.replace("''", "'"));
    }
    if let Some(inner) = text.strip_prefix('"') {
        let inner = inner.strip_suffix('"').ok_or("found unexpected end of stream")?;
        let mut out = String::new();
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            match (c, c == '\\') {
                (_, true) => match chars.next() {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some(other) => out.push(other),
                    None => return Err("found unknown escape character".into()),
                },
                (c, false) => out.push(c),
            }
        }
        return Ok(out);
    }
    Ok(if text == "null" || text == "~" {
        String::new()
    } else {
        text.to_string()
    })
}

/// Writes a scalar so that [`parse`] and real YAML readers return the same text.
pub fn scalar(text: &str) -> String {
    let plain_start = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric() || c == '/' || c == '_');
    let plain_rest = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/_.-:@+=,".contains(c))
        && !text.ends_with(':');
    let ambiguous = ["null", "true", "false", "yes", "no", "on", "off"]
        .contains(&text.to_ascii_lowercase().as_str())
        || text.parse::<f64>().is_ok();
    if plain_start && plain_rest && !ambiguous {
        return text.to_string();
    }
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
        .replace('\t', "\\t");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_a_client_configuration() {
        let doc = b"# Updated by `pmm-agent setup`.\n---\nid: /agent_id/1\nlisten-port: 7777\nserver:\n    address: pmm.lab:443\n    password: 'p''w: #1' \npaths:\n    tempdir: /tmp # here\nports: {}\n";
        let node = parse(doc).unwrap();
        assert_eq!(node.get("id").unwrap().text(), Some("/agent_id/1"));
        assert_eq!(
            node.get("server").unwrap().get("address").unwrap().text(),
            Some("pmm.lab:443")
        );
        assert_eq!(
            node.get("server").unwrap().get("password").unwrap().text(),
            Some("p'w: #1")
        );
        assert_eq!(
            node.get("paths").unwrap().get("tempdir").unwrap().text(),
            Some("/tmp")
        );
    }

    #[test]
    fn empty_is_empty_and_garbage_is_an_error() {
        assert_eq!(parse(b"").unwrap(), Node::Map(vec![]));
        assert!(parse(b"\x00\xff").is_err());
        assert!(parse(b"just words").is_err());
        assert!(parse(b"a: b\n   c: d\n").is_err());
    }

    #[test]
    fn scalars_survive_a_round_trip() {
        for text in [
            "admin",
            "p\"w\\d'#: x",
            "/usr/local",
            "true",
            "123",
            "",
            "pmm.lab:443",
            "a\nb",
            "glsa_x",
        ] {
            let node = parse(format!("k: {}\n", scalar(text)).as_bytes()).unwrap();
            assert_eq!(node.get("k").unwrap().text(), Some(text));
        }
    }
}
