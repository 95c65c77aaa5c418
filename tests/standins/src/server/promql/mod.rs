//! The part of PromQL that monitoring checks are made of: selectors with matchers and offsets, range functions, aggregations, comparisons.

mod eval;
mod parse;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::http::Resp;
pub use eval::{Eval, evaluate};
pub use parse::{Expr, parse};

/// The labels of a series; the name is `__name__`.
pub type Labels = BTreeMap<String, String>;

/// How far back an instant query looks for the last sample.
pub const LOOKBACK_MS: i64 = 5 * 60 * 1000;

/// One series with its samples in the order of time.
#[derive(Debug, Clone)]
pub struct Series {
    /// The labels.
    pub labels: Labels,
    /// Time in milliseconds and value.
    pub samples: Vec<(i64, f64)>,
}

impl Series {
    /// Adds a sample; a late one is put in its place, a repeated one replaces the first.
    pub fn push(&mut self, at: i64, value: f64) {
        let place = self.samples.partition_point(|(t, _)| *t < at);
        match self.samples.get_mut(place) {
            Some(sample) if sample.0 == at => sample.1 = value,
            _ => self.samples.insert(place, (at, value)),
        }
    }

    /// The samples in `(from, to]`.
    pub fn range(&self, from: i64, to: i64) -> &[(i64, f64)] {
        let start = self.samples.partition_point(|(t, _)| *t <= from);
        let end = self.samples.partition_point(|(t, _)| *t <= to);
        self.samples.get(start..end).unwrap_or_default()
    }
}

/// Where series come from.
pub trait Source {
    /// All of them.
    fn series(&self) -> Box<dyn Iterator<Item = &Series> + '_>;
}

impl Source for super::tsdb::Tsdb {
    fn series(&self) -> Box<dyn Iterator<Item = &Series> + '_> {
        Box::new(self.all())
    }
}

impl Source for Vec<Series> {
    fn series(&self) -> Box<dyn Iterator<Item = &Series> + '_> {
        Box::new(self.iter())
    }
}

/// Reads `name{label="value",...}` without operators other than `=`.
pub fn parse_series(text: &str) -> Option<Labels> {
    let Ok(Expr::Selector { name, matchers, .. }) = parse(text) else {
        return None;
    };
    let mut labels: Labels = matchers.into_iter().map(|m| (m.label, m.value)).collect();
    if let Some(name) = name {
        labels.insert("__name__".to_owned(), name);
    }
    Some(labels)
}

/// Answers `/api/v1/query` and `/api/v1/query_range`.
pub fn http(source: &impl Source, range: bool, params: &BTreeMap<String, String>) -> Resp {
    match answer(source, range, params) {
        Ok(data) => Resp::json(200, &json!({"status": "success", "data": data})),
        Err(message) => Resp::json(
            422,
            &json!({"status": "error", "errorType": "422", "error": message}),
        ),
    }
}

fn answer(source: &impl Source, range: bool, params: &BTreeMap<String, String>) -> Result<Value, String> {
    let query = params
        .get("query")
        .filter(|q| !q.trim().is_empty())
        .ok_or("missing `query` arg")?;
    let expr = parse(query).map_err(|e| format!("error when parsing query {query:?}: {e}"))?;
    let now = jiff::Timestamp::now().as_millisecond();
    if !range {
        let at = params.get("time").map_or(Ok(now), |t| time_ms(t))?;
        return Ok(match evaluate(&expr, source, at)? {
            Eval::Scalar(v) => json!({"resultType": "scalar", "result": [seconds(at), number(v)]}),
            Eval::Vector(rows) => {
                let rows: Vec<Value> = rows
                    .iter()
                    .map(|r| json!({"metric": r.labels, "value": [seconds(at), number(r.value)]}))
                    .collect();
                json!({"resultType": "vector", "result": rows})
            }
            Eval::Matrix(rows) => {
                json!({"resultType": "matrix", "result": rows.iter().map(matrix).collect::<Vec<_>>()})
            }
        });
    }
    let (start, end) = (
        params
            .get("start")
            .map_or(Ok(now - LOOKBACK_MS), |t| time_ms(t))?,
        params.get("end").map_or(Ok(now), |t| time_ms(t))?,
    );
    let step = params
        .get("step")
        .map_or(Ok(60_000), |s| parse::duration_ms(s))?
        .max(1000);
    if (end - start) / step > 11_000 {
        return Err("too many points for the given start, end and step".to_owned());
    }
    let mut found: BTreeMap<String, Series> = BTreeMap::new();
    let mut at = start;
    while at <= end {
        let rows = match evaluate(&expr, source, at)? {
            Eval::Vector(rows) => rows,
            Eval::Scalar(value) => vec![eval::Row {
                labels: Labels::new(),
                value,
                at,
            }],
            Eval::Matrix(_) => return Err("a range vector cannot be graphed".to_owned()),
        };
        for row in rows {
            let key = format!("{:?}", row.labels);
            found
                .entry(key)
                .or_insert_with(|| Series {
                    labels: row.labels,
                    samples: Vec::new(),
                })
                .samples
                .push((at, row.value));
        }
        at += step;
    }
    Ok(json!({"resultType": "matrix", "result": found.values().map(matrix).collect::<Vec<_>>()}))
}

fn matrix(series: &Series) -> Value {
    let values: Vec<Value> = series
        .samples
        .iter()
        .map(|(t, v)| json!([seconds(*t), number(*v)]))
        .collect();
    json!({"metric": series.labels, "values": values})
}

/// A point in time: seconds, or RFC 3339.
fn time_ms(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1000.0).round() as i64);
    }
    text.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_millisecond)
        .map_err(|e| format!("cannot parse time {text:?}: {e}"))
}

fn seconds(at: i64) -> Value {
    if at % 1000 == 0 {
        json!(at / 1000)
    } else {
        json!(at as f64 / 1000.0)
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 {
            "+Inf".to_owned()
        } else {
            "-Inf".to_owned()
        }
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests;
