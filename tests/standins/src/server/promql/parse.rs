//! The text of a query into a tree.

/// A condition on a label.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label.
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub op: String,
    /// The value or pattern.
    pub value: String,
    /// The compiled pattern.
    pub pattern: Option<regex::Regex>,
}

/// A query.
#[derive(Debug, Clone)]
pub enum Expr {
    /// A number.
    Number(f64),
    /// `name{...}[range] offset d`.
    Selector {
        /// The metric, if it is given as a name.
        name: Option<String>,
        /// The conditions.
        matchers: Vec<Matcher>,
        /// The range of a range vector, in milliseconds.
        range: Option<i64>,
        /// How far in the past it is evaluated, in milliseconds.
        offset: i64,
    },
    /// `f(x, ...)`.
    Call(String, Vec<Self>),
    /// `count by (a) (x)`.
    Aggregate {
        /// `sum`, `count` and so on.
        op: String,
        /// The labels that are kept, or dropped if `without`.
        labels: Vec<String>,
        /// Whether the labels are dropped.
        without: bool,
        /// What is aggregated.
        arg: Box<Self>,
    },
    /// `a op b`.
    Binary(String, Box<Self>, Box<Self>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Number(f64),
    Text(String),
    Range(i64),
    Op(String),
}

const AGGREGATES: &[&str] = &["sum", "count", "min", "max", "avg", "group"];

/// Reads a query.
pub fn parse(text: &str) -> Result<Expr, String> {
    let mut p = Parser {
        tokens: tokens(text)?,
        at: 0,
    };
    let expr = p.binary(0)?;
    match p.tokens.get(p.at) {
        None => Ok(expr),
        Some(t) => Err(format!("unparsed data left: {t:?}")),
    }
}

/// `5m`, `1h30m`, or plain seconds, in milliseconds.
pub fn duration_ms(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1000.0) as i64);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(|| format!("cannot parse duration {text:?}"))?;
        let n: f64 = rest[..digits]
            .parse()
            .map_err(|_| format!("cannot parse duration {text:?}"))?;
        rest = &rest[digits..];
        let len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += n * match &rest[..len] {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            "w" => 6.048e8,
            unit => return Err(format!("unknown unit {unit:?} in {text:?}")),
        };
        rest = &rest[len..];
    }
    Ok(total as i64)
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut i = 0;
    let run =
        |from: usize, keep: &dyn Fn(char) -> bool| chars[from..].iter().take_while(|c| keep(**c)).count();
    while let Some(&c) = chars.get(i) {
        match c {
            _ if c.is_whitespace() => i += 1,
            '#' => i += run(i, &|c| c != '\n'),
            '"' | '\'' | '`' => {
                let mut value = String::new();
                i += 1;
                loop {
                    match chars.get(i) {
                        None => return Err("unterminated string".to_owned()),
                        Some('\\') if c != '`' => {
                            match chars.get(i + 1) {
                                Some('n') => value.push('\n'),
                                Some(e) => value.push(*e),
                                None => return Err("unterminated string".to_owned()),
                            }
                            i += 2;
                        }
                        Some(e) if *e == c => break,
                        Some(e) => {
                            value.push(*e);
                            i += 1;
                        }
                    }
                }
                i += 1;
                out.push(Token::Text(value));
            }
            '[' => {
                let len = run(i + 1, &|c| c != ']');
                if chars.get(i + 1 + len) != Some(&']') {
                    return Err("unterminated range".to_owned());
                }
                let body: String = chars[i + 1..i + 1 + len].iter().collect();
                out.push(Token::Range(duration_ms(body.trim())?));
                i += len + 2;
            }
            '0'..='9' => {
                let len = run(i, &|c| c.is_ascii_alphanumeric() || c == '.');
                let body: String = chars[i..i + len].iter().collect();
                out.push(match body.parse() {
                    Ok(n) => Token::Number(n),
                    Err(_) => Token::Number(duration_ms(&body)? as f64 / 1000.0),
                });
                i += len;
            }
            '_' | ':' | 'a'..='z' | 'A'..='Z' => {
                let len = run(i, &|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
                out.push(Token::Word(chars[i..i + len].iter().collect()));
                i += len;
            }
            _ => {
                let two: String = chars[i..(i + 2).min(chars.len())].iter().collect();
                if ["==", "!=", ">=", "<=", "=~", "!~"].contains(&two.as_str()) {
                    out.push(Token::Op(two));
                    i += 2;
                } else if "(){},=<>+-*/%".contains(c) {
                    out.push(Token::Op(c.to_string()));
                    i += 1;
                } else {
                    return Err(format!("unexpected character {c:?}"));
                }
            }
        }
    }
    Ok(out)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Token::Op(o)) if o == op)
    }

    fn take_op(&mut self, op: &str) -> bool {
        let hit = self.is_op(op);
        self.at += usize::from(hit);
        hit
    }

    fn expect(&mut self, op: &str) -> Result<(), String> {
        if self.take_op(op) {
            Ok(())
        } else {
            Err(format!("expected {op:?}, found {:?}", self.peek()))
        }
    }

    fn word(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.peek() else {
            return None;
        };
        let word = word.clone();
        self.at += 1;
        Some(word)
    }

    fn binary(&mut self, level: usize) -> Result<Expr, String> {
        const LEVELS: &[&[&str]] = &[
            &["or"],
            &["and", "unless"],
            &["==", "!=", ">", "<", ">=", "<="],
            &["+", "-"],
            &["*", "/", "%"],
        ];
        let Some(ops) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        loop {
            let op = match self.peek() {
                Some(Token::Op(op) | Token::Word(op)) if ops.contains(&op.as_str()) => op.clone(),
                _ => return Ok(left),
            };
            self.at += 1;
            if matches!(self.peek(), Some(Token::Word(w)) if w == "bool") {
                self.at += 1;
            }
            let right = self.binary(level + 1)?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
    }

    fn unary(&mut self) -> Result<Expr, String> {
        if self.take_op("-") {
            return Ok(Expr::Binary(
                "-".to_owned(),
                Box::new(Expr::Number(0.0)),
                Box::new(self.unary()?),
            ));
        }
        if self.take_op("(") {
            let inner = self.binary(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if let Some(Token::Number(n)) = self.peek() {
            let n = *n;
            self.at += 1;
            return Ok(Expr::Number(n));
        }
        if self.is_op("{") {
            return self.selector(None);
        }
        let word = self
            .word()
            .ok_or_else(|| format!("unexpected {:?}", self.peek()))?;
        if AGGREGATES.contains(&word.as_str()) {
            return self.aggregate(word);
        }
        if !self.is_op("(") {
            return self.selector(Some(word));
        }
        self.at += 1;
        let mut args = Vec::new();
        while !self.take_op(")") {
            args.push(self.binary(0)?);
            if !self.take_op(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(Expr::Call(word, args))
    }

    fn aggregate(&mut self, op: String) -> Result<Expr, String> {
        let (mut labels, mut without) = self.grouping()?.unwrap_or_default();
        self.expect("(")?;
        let arg = Box::new(self.binary(0)?);
        self.expect(")")?;
        if let Some((after, w)) = self.grouping()? {
            (labels, without) = (after, w);
        }
        Ok(Expr::Aggregate {
            op,
            labels,
            without,
            arg,
        })
    }

    fn grouping(&mut self) -> Result<Option<(Vec<String>, bool)>, String> {
        let without = match self.peek() {
            Some(Token::Word(w)) if w == "by" => false,
            Some(Token::Word(w)) if w == "without" => true,
            _ => return Ok(None),
        };
        self.at += 1;
        self.expect("(")?;
        let mut labels = Vec::new();
        while let Some(label) = self.word() {
            labels.push(label);
            if !self.take_op(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(Some((labels, without)))
    }

    fn selector(&mut self, name: Option<String>) -> Result<Expr, String> {
        let mut matchers = Vec::new();
        if self.take_op("{") {
            while let Some(label) = self.word() {
                let Some(Token::Op(op)) = self.peek().cloned() else {
                    return Err("expected a matcher".to_owned());
                };
                self.at += 1;
                let Some(Token::Text(value)) = self.peek().cloned() else {
                    return Err("expected a string".to_owned());
                };
                self.at += 1;
                let pattern = if op.contains('~') {
                    Some(regex::Regex::new(&format!("^(?:{value})$")).map_err(|e| e.to_string())?)
                } else {
                    None
                };
                matchers.push(Matcher {
                    label,
                    op,
                    value,
                    pattern,
                });
                if !self.take_op(",") {
                    break;
                }
            }
            self.expect("}")?;
        }
        let mut range = None;
        if let Some(Token::Range(r)) = self.peek() {
            range = Some(*r);
            self.at += 1;
        }
        let mut offset = 0;
        if matches!(self.peek(), Some(Token::Word(w)) if w == "offset") {
            self.at += 1;
            let Some(Token::Number(seconds)) = self.peek() else {
                return Err("expected an offset".to_owned());
            };
            offset = (seconds * 1000.0) as i64;
            self.at += 1;
        }
        Ok(Expr::Selector {
            name,
            matchers,
            range,
            offset,
        })
    }
}
