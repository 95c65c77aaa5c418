//! qan-api2: migrates its tables in ClickHouse, takes query buckets from pmm-managed, answers the report.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::{
    clickhouse,
    http::{self, Req, Resp},
    ids, log, role,
    switches::Switches,
    version::Version,
};

/// The port.
pub const PORT: u16 = 9922;

/// The server.
pub async fn run() -> io::Result<()> {
    let version = Version::of_image();
    log::line(format!("qan-api2 {version}."));
    let mut tries = 0;
    while http::call_json(clickhouse::PORT, "GET", "/ping", None)
        .await
        .is_err()
    {
        tries += 1;
        if tries > 30 {
            return Err(io::Error::other(
                "dial tcp 127.0.0.1:9000: connect: connection refused",
            ));
        }
        role::sleep(0.5).await;
    }
    migrate(version).await?;
    let listener = role::listen(PORT).await?;
    log::line("Starting server on http://127.0.0.1:9922/ ...");
    tokio::spawn(http::serve(
        listener,
        None,
        http::handler(Arc::new(Mutex::new(version)), answer),
    ));
    role::stop_signal().await.map(|_| ())
}

async fn migrate(version: Version) -> io::Result<()> {
    let have = http::call_json(clickhouse::PORT, "GET", "/schema_migrations", None)
        .await?
        .value();
    let (number, dirty) = (
        have["version"].as_u64().unwrap_or(0),
        have["dirty"].as_bool().unwrap_or(false),
    );
    let target = u64::from(version.qan_schema());
    if dirty {
        return Err(io::Error::other(format!(
            "Migrations: Dirty database version {number}. Fix and force version."
        )));
    }
    if number > target {
        return Err(io::Error::other(format!(
            "Migrations: no migration found for version {number}"
        )));
    }
    if number == target {
        return Ok(());
    }
    let set = |n: u64, dirty: bool| json!({"version": n, "dirty": dirty});
    http::call_json(
        clickhouse::PORT,
        "PUT",
        "/schema_migrations",
        Some(&set(target, true)),
    )
    .await?;
    if number > 0 && Switches::fails("qan_dirty") {
        return Err(io::Error::other(format!(
            "Migrations: Dirty database version {target}. Fix and force version."
        )));
    }
    if number > 0 && Switches::now().lose_qan {
        http::call_json(clickhouse::PORT, "POST", "/truncate", None).await?;
    }
    http::call_json(
        clickhouse::PORT,
        "PUT",
        "/schema_migrations",
        Some(&set(target, false)),
    )
    .await?;
    log::line(format!("Migrations applied: {number} -> {target}"));
    Ok(())
}

async fn answer(version: Arc<Mutex<Version>>, req: Req) -> Resp {
    let version = *version.lock().unwrap_or_else(PoisonError::into_inner);
    match (req.method.as_str(), req.path.as_str()) {
        ("GET", "/health") => Resp::json(200, &json!({})),
        ("POST", "/internal/collect") => {
            let Ok(rows) = req.json() else {
                return Resp::empty(400);
            };
            http::call_json(clickhouse::PORT, "POST", "/insert", Some(&rows))
                .await
                .unwrap_or_else(|e| unavailable(&e))
        }
        ("POST", "/v0/qan/GetReport") if !version.is_v3() => report_http(&req, false).await,
        ("POST", "/v1/qan/metrics:getReport") if version.is_v3() => report_http(&req, true).await,
        (
            "POST",
            "/v0/qan/ObjectDetails/GetMetrics"
            | "/v0/qan/Filters/Get"
            | "/v1/qan/metrics:getFilters"
            | "/v1/qan/metrics:getNames",
        ) => Resp::json(200, &json!({})),
        _ => Resp::grpc(404, 5, "Not Found"),
    }
}

fn unavailable(e: &io::Error) -> Resp {
    Resp::grpc(503, 14, &format!("clickhouse: {e}"))
}

async fn report_http(req: &Req, v3: bool) -> Resp {
    let body = match req.json() {
        Ok(body) => body,
        Err(resp) => return resp,
    };
    let time = |name: &str| -> Result<u64, String> {
        let text = body[name]
            .as_str()
            .ok_or_else(|| format!("from-date or to-date is not set: {name}"))?;
        let at: jiff::Timestamp = text
            .parse()
            .map_err(|e| format!("proto: invalid value for {name}: {e}"))?;
        Ok(at.as_second().max(0).cast_unsigned())
    };
    let (from, to) = match (time("period_start_from"), time("period_start_to")) {
        (Ok(from), Ok(to)) if from <= to => (from, to),
        (Ok(_), Ok(_)) => return Resp::grpc(400, 3, "from-date is later then to-date"),
        (Err(e), _) | (_, Err(e)) => return Resp::grpc(400, 3, &e),
    };
    let rows = match http::call_json(
        clickhouse::PORT,
        "GET",
        &format!("/select?from={from}&to={to}"),
        None,
    )
    .await
    {
        Ok(answer) if answer.ok() => answer.value(),
        Ok(answer) => return Resp::grpc(500, 2, &format!("clickhouse answered {}", answer.status)),
        Err(e) => return unavailable(&e),
    };
    let mut answer = report(
        &body,
        rows.as_array().map(Vec::as_slice).unwrap_or_default(),
        to.saturating_sub(from).max(1),
    );
    if !v3 {
        super::shape::omit_defaults(&mut answer);
    }
    Resp::json(200, &answer)
}

#[derive(Default, Clone)]
struct Sum {
    fingerprint: String,
    database: String,
    queries: f64,
    time: f64,
}

/// The report over the rows of a window of `seconds`.
///
/// The first row is always the total, with an empty dimension, even when there is nothing else: a list that is not empty says nothing.
fn report(req: &Value, rows: &[Value], seconds: u64) -> Value {
    let group_by = req["group_by"]
        .as_str()
        .filter(|g| !g.is_empty())
        .unwrap_or("queryid");
    let wanted: Vec<(&str, Vec<&str>)> = req["labels"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|l| {
            Some((
                l["key"].as_str()?,
                l["value"].as_array()?.iter().filter_map(Value::as_str).collect(),
            ))
        })
        .collect();
    let search = req["search"].as_str().unwrap_or_default().to_lowercase();
    let matches = |row: &Value| {
        wanted.iter().all(|(key, values)| {
            let have = row[*key].as_str().unwrap_or_default();
            values.is_empty() || values.iter().any(|v| *v == have || ids::same(v, have))
        }) && (search.is_empty()
            || row["fingerprint"]
                .as_str()
                .unwrap_or_default()
                .to_lowercase()
                .contains(&search))
    };
    let mut groups: BTreeMap<String, Sum> = BTreeMap::new();
    let mut total = Sum {
        fingerprint: "TOTAL".to_owned(),
        ..Sum::default()
    };
    for row in rows.iter().filter(|r| matches(r)) {
        let (queries, time) = (
            row["num_queries"].as_f64().unwrap_or(0.0),
            row["query_time"].as_f64().unwrap_or(0.0),
        );
        let sum = groups
            .entry(row[group_by].as_str().unwrap_or_default().to_owned())
            .or_default();
        for s in [&mut *sum, &mut total] {
            s.queries += queries;
            s.time += time;
        }
        sum.fingerprint = row[if group_by == "queryid" {
            "fingerprint"
        } else {
            group_by
        }]
        .as_str()
        .unwrap_or_default()
        .to_owned();
        sum.database = row["database"].as_str().unwrap_or_default().to_owned();
    }
    let mut sorted: Vec<(String, Sum)> = groups.into_iter().collect();
    let order = req["order_by"].as_str().unwrap_or("-load");
    sorted.sort_by(|(_, a), (_, b)| {
        let (x, y) = if order.ends_with("num_queries") {
            (a.queries, b.queries)
        } else {
            (a.time, b.time)
        };
        if order.starts_with('-') {
            y.total_cmp(&x)
        } else {
            x.total_cmp(&y)
        }
    });
    let count = sorted.len();
    let number = |name: &str| {
        req[name]
            .as_u64()
            .or_else(|| req[name].as_str().and_then(|t| t.parse().ok()))
    };
    let offset = number("offset").unwrap_or(0);
    let limit = number("limit").filter(|l| *l > 0).unwrap_or(10);
    let page = sorted
        .iter()
        .enumerate()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|(rank, (dimension, sum))| row_json(rank + 1, dimension, sum, seconds));
    let all: Vec<Value> = std::iter::once(row_json(0, "", &total, seconds))
        .chain(page)
        .collect();
    json!({"total_rows": count, "offset": offset, "limit": limit, "rows": all})
}

fn row_json(rank: usize, dimension: &str, sum: &Sum, seconds: u64) -> Value {
    let window = seconds as f64;
    let stats = |total: f64| {
        let avg = if sum.queries > 0.0 {
            total / sum.queries
        } else {
            0.0
        };
        json!({"stats": {
            "rate": 0.0, "cnt": sum.queries, "sum": total, "min": avg, "max": avg, "p99": avg, "avg": avg, "sum_per_sec": total / window,
        }})
    };
    json!({
        "rank": rank,
        "dimension": dimension,
        "database": sum.database,
        "metrics": {"num_queries": stats(sum.queries), "query_time": stats(sum.time)},
        "sparkline": [{"point": 0, "time_frame": 60, "load": if sum.queries > 0.0 { json!(sum.time / window) } else { json!("NaN") }}],
        "fingerprint": sum.fingerprint,
        "num_queries": sum.queries,
        "qps": sum.queries / window,
        "load": sum.time / window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Value> {
        let row = |service: &str, id: &str, n: f64| json!({"service_name": service, "queryid": id, "fingerprint": id, "num_queries": n, "query_time": n / 10.0});
        vec![
            row("a", "q1", 5.0),
            row("a", "q1", 5.0),
            row("a", "q2", 1.0),
            row("b", "q1", 3.0),
        ]
    }

    #[test]
    fn the_first_row_is_the_total() {
        let r = report(
            &json!({"labels": [{"key": "service_name", "value": ["a"]}]}),
            &rows(),
            60,
        );
        assert_eq!(r["total_rows"], 2);
        assert_eq!(r["rows"][0]["fingerprint"], "TOTAL");
        assert_eq!(r["rows"][0]["num_queries"], 11.0);
        assert_eq!(r["rows"][1]["dimension"], "q1");
    }

    #[test]
    fn nothing_found_still_has_a_total_row() {
        let r = report(
            &json!({"labels": [{"key": "service_name", "value": ["none"]}]}),
            &rows(),
            60,
        );
        assert_eq!(r["total_rows"], 0);
        assert_eq!(r["rows"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn grouping_by_service_counts_services() {
        let r = report(
            &json!({"group_by": "service_name", "order_by": "-num_queries", "limit": 1}),
            &rows(),
            60,
        );
        assert_eq!(r["total_rows"], 2);
        assert_eq!(r["rows"].as_array().map(Vec::len), Some(2));
        assert_eq!(r["rows"][1]["dimension"], "a");
    }
}
