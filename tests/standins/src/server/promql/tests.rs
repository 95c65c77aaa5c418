#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn data() -> Vec<Series> {
    let series = |text: &str, samples: &[(i64, f64)]| Series {
        labels: parse_series(text).unwrap(),
        samples: samples.to_vec(),
    };
    vec![
        series(
            "up{node_name=\"a\",agent_type=\"node_exporter\"}",
            &[(1_000_000, 1.0), (1_060_000, 1.0)],
        ),
        series(
            "up{node_name=\"b\",agent_type=\"mysqld_exporter\"}",
            &[(1_000_000, 1.0), (1_060_000, 0.0)],
        ),
        series("mysql_up{node_name=\"b\"}", &[(1_060_000, 1.0)]),
    ]
}

fn rows(query: &str, at: i64) -> Vec<(String, f64)> {
    let rows = match evaluate(&parse(query).unwrap(), &data(), at).unwrap() {
        Eval::Vector(rows) => rows,
        other => panic!("{other:?}"),
    };
    rows.into_iter()
        .map(|r| (r.labels.get("node_name").cloned().unwrap_or_default(), r.value))
        .collect()
}

#[test]
fn an_instant_query_looks_back_five_minutes_and_no_further() {
    assert_eq!(rows("up", 1_060_000).len(), 2);
    assert_eq!(rows("up", 1_000_000 + LOOKBACK_MS - 1).len(), 2);
    assert_eq!(rows("up", 1_060_000 + LOOKBACK_MS).len(), 0);
    assert_eq!(rows("up", 999_999).len(), 0, "the future is not visible");
}

#[test]
fn matchers_select() {
    assert_eq!(rows("up{node_name=\"a\"}", 1_060_000), [("a".to_owned(), 1.0)]);
    assert_eq!(
        rows("up{agent_type=~\"mysqld.*|x\"}", 1_060_000),
        [("b".to_owned(), 0.0)]
    );
    assert_eq!(rows("{__name__=~\".*_up\"}", 1_060_000), [("b".to_owned(), 1.0)]);
    assert_eq!(rows("up{node_name!~\"a|b\"}", 1_060_000), []);
    assert_eq!(rows("up == 1", 1_060_000), [("a".to_owned(), 1.0)]);
}

#[test]
fn functions_and_aggregations() {
    assert_eq!(rows("count(up)", 1_060_000), [(String::new(), 2.0)]);
    assert_eq!(rows("count by (node_name) (up)", 1_060_000).len(), 2);
    assert_eq!(
        rows("sum(up) by (node_name)", 1_060_000),
        [("a".to_owned(), 1.0), ("b".to_owned(), 0.0)]
    );
    assert_eq!(
        rows("timestamp(up{node_name=\"a\"})", 1_100_000),
        [("a".to_owned(), 1060.0)]
    );
    assert_eq!(
        rows("time() - timestamp(mysql_up) < 60", 1_100_000),
        [("b".to_owned(), 40.0)]
    );
    assert_eq!(
        rows("count_over_time(up{node_name=\"a\"}[10m])", 1_100_000),
        [("a".to_owned(), 2.0)]
    );
    assert_eq!(
        rows("min_over_time(up[2m]) unless mysql_up", 1_100_000),
        [("a".to_owned(), 1.0), ("b".to_owned(), 0.0)]
    );
    assert_eq!(
        rows("up{node_name=\"b\"} offset 1m", 1_100_000),
        [("b".to_owned(), 1.0)]
    );
}

#[test]
fn mistakes_are_errors() {
    for query in ["", "up{", "up{a=b}", "count(up", "up[5m", "foo(up)", "up !"] {
        let wrong = parse(query).and_then(|e| evaluate(&e, &data(), 0).map(|_| ()));
        assert!(wrong.is_err(), "{query}");
    }
}
