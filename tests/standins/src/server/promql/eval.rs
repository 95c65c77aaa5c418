//! The value of a query at a point in time.

use std::collections::BTreeMap;

use super::{Expr, LOOKBACK_MS, Labels, Series, Source, parse::Matcher};

/// One element of an instant vector.
#[derive(Debug, Clone)]
pub struct Row {
    /// The labels.
    pub labels: Labels,
    /// The value.
    pub value: f64,
    /// When the sample was taken, in milliseconds.
    pub at: i64,
}

/// What a query yields.
#[derive(Debug)]
pub enum Eval {
    /// A number.
    Scalar(f64),
    /// An instant vector.
    Vector(Vec<Row>),
    /// A range vector.
    Matrix(Vec<Series>),
}

/// Evaluates a query.
pub fn evaluate(expr: &Expr, source: &impl Source, at: i64) -> Result<Eval, String> {
    Ok(match expr {
        Expr::Number(n) => Eval::Scalar(*n),
        Expr::Selector {
            name,
            matchers,
            range,
            offset,
        } => {
            let end = at - offset;
            let hits = source
                .series()
                .filter(|s| selects(name.as_deref(), matchers, &s.labels));
            match range {
                Some(range) => Eval::Matrix(
                    hits.map(|s| Series {
                        labels: s.labels.clone(),
                        samples: s.range(end - range, end).to_vec(),
                    })
                    .filter(|s| !s.samples.is_empty())
                    .collect(),
                ),
                None => Eval::Vector(
                    hits.filter_map(|s| {
                        let (t, value) = *s.range(end - LOOKBACK_MS, end).last()?;
                        Some(Row {
                            labels: s.labels.clone(),
                            value,
                            at: t,
                        })
                    })
                    .collect(),
                ),
            }
        }
        Expr::Aggregate {
            op,
            labels,
            without,
            arg,
        } => Eval::Vector(aggregate(
            op,
            labels,
            *without,
            vector(evaluate(arg, source, at)?)?,
        )),
        Expr::Call(name, args) => call(name, args, source, at)?,
        Expr::Binary(op, a, b) => binary(op, evaluate(a, source, at)?, evaluate(b, source, at)?)?,
    })
}

fn selects(name: Option<&str>, matchers: &[Matcher], labels: &Labels) -> bool {
    let value = |label: &str| labels.get(label).map(String::as_str).unwrap_or_default();
    name.is_none_or(|n| value("__name__") == n)
        && matchers.iter().all(|m| {
            let have = value(&m.label);
            match (m.op.as_str(), &m.pattern) {
                ("=~", Some(p)) => p.is_match(have),
                ("!~", Some(p)) => !p.is_match(have),
                ("!=", _) => have != m.value,
                _ => have == m.value,
            }
        })
}

fn vector(value: Eval) -> Result<Vec<Row>, String> {
    match value {
        Eval::Vector(rows) => Ok(rows),
        Eval::Scalar(value) => Ok(vec![Row {
            labels: Labels::new(),
            value,
            at: 0,
        }]),
        Eval::Matrix(rows) => Ok(rows
            .into_iter()
            .filter_map(|s| {
                s.samples.last().map(|(at, value)| Row {
                    labels: s.labels.clone(),
                    value: *value,
                    at: *at,
                })
            })
            .collect()),
    }
}

fn nameless(mut labels: Labels) -> Labels {
    labels.remove("__name__");
    labels
}

fn aggregate(op: &str, by: &[String], without: bool, rows: Vec<Row>) -> Vec<Row> {
    let mut groups: BTreeMap<Labels, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let labels = if without {
            nameless(row.labels.clone())
                .into_iter()
                .filter(|(l, _)| !by.contains(l))
                .collect()
        } else {
            row.labels
                .clone()
                .into_iter()
                .filter(|(l, _)| by.contains(l))
                .collect()
        };
        groups.entry(labels).or_default().push(row);
    }
    groups
        .into_iter()
        .map(|(labels, rows)| {
            let values = rows.iter().map(|r| r.value);
            let n = rows.len() as f64;
            let value = match op {
                "sum" => values.sum(),
                "avg" => values.sum::<f64>() / n,
                "min" => values.fold(f64::INFINITY, f64::min),
                "max" => values.fold(f64::NEG_INFINITY, f64::max),
                "group" => 1.0,
                _ => n,
            };
            Row {
                labels,
                value,
                at: rows.iter().map(|r| r.at).max().unwrap_or(0),
            }
        })
        .collect()
}

/// The value of a series' samples in a range.
type Fold<'a> = dyn Fn(&[(i64, f64)]) -> Option<f64> + 'a;

fn call(name: &str, args: &[Expr], source: &impl Source, at: i64) -> Result<Eval, String> {
    let argument = || {
        args.last()
            .ok_or_else(|| format!("{name} needs an argument"))
            .and_then(|a| evaluate(a, source, at))
    };
    let over = |f: &Fold<'_>| match argument()? {
        Eval::Matrix(rows) => Ok(Eval::Vector(
            rows.into_iter()
                .filter_map(|s| {
                    let last = s.samples.last()?.0;
                    f(&s.samples).map(|value| Row {
                        labels: nameless(s.labels.clone()),
                        value,
                        at: last,
                    })
                })
                .collect(),
        )),
        _ => Err(format!("{name} needs a range vector")),
    };
    let each = |f: &dyn Fn(&Row) -> f64| -> Result<Eval, String> {
        Ok(Eval::Vector(
            vector(argument()?)?
                .into_iter()
                .map(|r| Row {
                    value: f(&r),
                    labels: nameless(r.labels),
                    at: r.at,
                })
                .collect(),
        ))
    };
    match name {
        "time" => Ok(Eval::Scalar(at as f64 / 1000.0)),
        "vector" => Ok(Eval::Vector(vector(argument()?)?)),
        "timestamp" => each(&|r| r.at as f64 / 1000.0),
        "abs" => each(&|r| r.value.abs()),
        "sort" | "sort_desc" | "last" => argument(),
        "absent" => Ok(Eval::Vector(if vector(argument()?)?.is_empty() {
            vec![Row {
                labels: Labels::new(),
                value: 1.0,
                at,
            }]
        } else {
            Vec::new()
        })),
        "count_over_time" => over(&|s| Some(s.len() as f64)),
        "sum_over_time" => over(&|s| Some(s.iter().map(|(_, v)| v).sum())),
        "avg_over_time" => over(&|s| Some(s.iter().map(|(_, v)| v).sum::<f64>() / s.len() as f64)),
        "min_over_time" => over(&|s| s.iter().map(|(_, v)| *v).reduce(f64::min)),
        "max_over_time" => over(&|s| s.iter().map(|(_, v)| *v).reduce(f64::max)),
        "last_over_time" => over(&|s| s.last().map(|(_, v)| *v)),
        "first_over_time" => over(&|s| s.first().map(|(_, v)| *v)),
        "present_over_time" => over(&|_| Some(1.0)),
        "tlast_over_time" | "timestamp_over_time" => over(&|s| s.last().map(|(t, _)| *t as f64 / 1000.0)),
        "tfirst_over_time" => over(&|s| s.first().map(|(t, _)| *t as f64 / 1000.0)),
        "changes" => over(&|s| Some(s.windows(2).filter(|w| (w[0].1 - w[1].1).abs() > 0.0).count() as f64)),
        "rate" | "increase" | "delta" => over(&|s| {
            let ((t0, v0), (t1, v1)) = (s.first()?, s.last()?);
            let seconds = (t1 - t0) as f64 / 1000.0;
            (seconds > 0.0).then(|| {
                if name == "rate" {
                    (v1 - v0) / seconds
                } else {
                    v1 - v0
                }
            })
        }),
        _ => Err(format!("unknown func {name:?}")),
    }
}

fn binary(op: &str, a: Eval, b: Eval) -> Result<Eval, String> {
    let compare = |x: f64, y: f64| match op {
        "==" => x == y,
        "!=" => x != y,
        ">" => x > y,
        "<" => x < y,
        ">=" => x >= y,
        _ => x <= y,
    };
    let is_compare = matches!(op, "==" | "!=" | ">" | "<" | ">=" | "<=");
    let math = |x: f64, y: f64| match op {
        "+" => x + y,
        "-" => x - y,
        "*" => x * y,
        "/" => x / y,
        _ => x % y,
    };
    let apply = |row: Row, x: f64, y: f64| -> Option<Row> {
        if is_compare {
            compare(x, y).then_some(row)
        } else {
            Some(Row {
                value: math(x, y),
                labels: nameless(row.labels),
                at: row.at,
            })
        }
    };
    Ok(match (a, b) {
        (Eval::Scalar(x), Eval::Scalar(y)) => Eval::Scalar(if is_compare {
            f64::from(u8::from(compare(x, y)))
        } else {
            math(x, y)
        }),
        (Eval::Vector(rows), Eval::Scalar(y)) => Eval::Vector(
            rows.into_iter()
                .filter_map(|r| {
                    let x = r.value;
                    apply(r, x, y)
                })
                .collect(),
        ),
        (Eval::Scalar(x), Eval::Vector(rows)) => Eval::Vector(
            rows.into_iter()
                .filter_map(|r| {
                    let y = r.value;
                    apply(r, x, y)
                })
                .collect(),
        ),
        (Eval::Vector(left), Eval::Vector(right)) => {
            let other: BTreeMap<Labels, f64> = right
                .iter()
                .map(|r| (nameless(r.labels.clone()), r.value))
                .collect();
            let found = |r: &Row| other.get(&nameless(r.labels.clone())).copied();
            Eval::Vector(match op {
                "and" => left.into_iter().filter(|r| found(r).is_some()).collect(),
                "unless" => left.into_iter().filter(|r| found(r).is_none()).collect(),
                "or" => {
                    let have: Vec<Labels> = left.iter().map(|r| nameless(r.labels.clone())).collect();
                    let more = right
                        .into_iter()
                        .filter(|r| !have.contains(&nameless(r.labels.clone())));
                    left.into_iter().chain(more).collect()
                }
                _ => left
                    .into_iter()
                    .filter_map(|r| {
                        let (x, y) = (r.value, found(&r)?);
                        apply(r, x, y)
                    })
                    .collect(),
            })
        }
        _ => return Err(format!("operator {op:?} needs instant vectors or numbers")),
    })
}
