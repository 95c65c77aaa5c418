//! The exporters: a page of metrics on the port that `pmm-agent` gives.

use super::http::{read_request, respond};
use super::release::Release;
use super::{clock, die_with_parent, out};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Runs one exporter until it is stopped.
pub fn main(release: &Release, program: &str, args: &[String]) -> u8 {
    if args.iter().any(|a| a == "--version" || a == "-version") {
        out::line(&format!(
            "{program}, version {} (branch: main, revision: {})",
            release.version, release.commit
        ));
        return 0;
    }
    die_with_parent();
    let address = value(args, "web.listen-address").unwrap_or_else(|| "127.0.0.1:42000".into());
    let listener = match TcpListener::bind(&address) {
        Ok(listener) => listener,
        Err(e) => {
            out::log("FATA", program, &format!("listen {address}: {e}"));
            return 1;
        }
    };
    let started = Instant::now();
    for tcp in listener.incoming().flatten() {
        let _ = serve(&tcp, program, args, started);
    }
    0
}

/// The value of `--name=value` or `-name=value`.
pub fn value(args: &[String], name: &str) -> Option<String> {
    args.iter().find_map(|a| {
        a.trim_start_matches('-')
            .strip_prefix(name)?
            .strip_prefix('=')
            .map(ToString::to_string)
    })
}

fn serve(tcp: &TcpStream, program: &str, args: &[String], started: Instant) -> std::io::Result<()> {
    tcp.set_read_timeout(Some(Duration::from_secs(2)))?;
    let (_, target, _) = read_request(tcp)?;
    let resolution = target.split_once("resolution=").map_or("hr", |(_, r)| r);
    if !target.starts_with("/metrics") {
        return respond(tcp, "404 Not Found", "text/plain", b"not found\n");
    }
    respond(
        tcp,
        "200 OK",
        "text/plain; version=0.0.4",
        page(program, args, resolution, started).as_bytes(),
    )
}

fn page(program: &str, args: &[String], resolution: &str, started: Instant) -> String {
    let seconds = clock::unix_ms() / 1000;
    let age = started.elapsed().as_secs();
    let mut text = String::new();
    let mut add = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if resolution == "hr" {
        match program {
            "node_exporter" => {
                add("node_uname_info{sysname=\"Linux\"} 1".into());
                add(format!("node_time_seconds {seconds}"));
                add(format!("node_load1 {}.{}", seconds % 4, seconds % 10));
                add(format!(
                    "node_cpu_seconds_total{{cpu=\"0\",mode=\"user\"}} {}",
                    seconds % 1_000_000
                ));
            }
            "mysqld_exporter" => {
                add("mysql_up 1".into());
                add(format!("mysql_global_status_uptime {age}"));
                add(format!("mysql_global_status_queries {}", age * 17));
            }
            "postgres_exporter" => {
                add("pg_up 1".into());
                add(format!("pg_stat_database_xact_commit {}", age * 9));
            }
            "mongodb_exporter" => {
                add("mongodb_up 1".into());
                add(format!("mongodb_ss_opcounters{{type=\"query\"}} {}", age * 5));
            }
            "proxysql_exporter" => add("proxysql_up 1".into()),
            other => add(format!("{}_build_info 1", other.replace('-', "_"))),
        }
    }
    add(format!("process_start_time_seconds {}", seconds - age));
    if program == "node_exporter" {
        textfiles(args, resolution, &mut text);
    } else {
        custom_queries(args, resolution, &mut text);
    }
    text
}

/// Metrics that an administrator left in the textfile collector's directory.
fn textfiles(args: &[String], resolution: &str, text: &mut String) {
    for (name, content) in files(
        args,
        &format!("collector.textfile.directory.{resolution}"),
        "prom",
    ) {
        for line in content
            .lines()
            .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        {
            text.push_str(line.trim());
            text.push('\n');
        }
        text.push_str(&format!("node_textfile_mtime_seconds{{file=\"{name}\"}} 1\n"));
    }
}

/// One series per `- name:` or top-level key of the custom query files: enough to see which of them a client runs.
fn custom_queries(args: &[String], resolution: &str, text: &mut String) {
    for (name, content) in files(
        args,
        &format!("collect.custom_query.{resolution}.directory"),
        "yml",
    ) {
        for line in content.lines() {
            let top_level = line.ends_with(':') && !line.starts_with([' ', '#', '-']);
            if top_level {
                text.push_str(&format!(
                    "standin_custom_query{{file=\"{name}\",query=\"{}\"}} 1\n",
                    line.trim_end_matches(':')
                ));
            }
        }
    }
}

fn files(args: &[String], flag: &str, extension: &str) -> Vec<(String, String)> {
    let Some(dir) = value(args, flag) else {
        return Vec::new();
    };
    let mut found: Vec<(String, String)> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == extension))
        .filter_map(|e| {
            Some((
                e.file_name().to_string_lossy().into_owned(),
                std::fs::read_to_string(e.path()).ok()?,
            ))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_page_has_the_database_up_metric_and_the_administrators_files() {
        let dir = std::env::temp_dir().join(format!("standin-exporter-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("mine.prom"), "# c\nmy_metric 5\n").unwrap();
        std::fs::write(dir.join("mine.yml"), "mysql_mine:\n  query: select 1\n").unwrap();
        let text = page(
            "node_exporter",
            &[format!("--collector.textfile.directory.hr={}", dir.display())],
            "hr",
            Instant::now(),
        );
        assert!(text.contains("my_metric 5") && text.contains("node_load1"));
        let args = [format!("--collect.custom_query.mr.directory={}", dir.display())];
        assert!(page("mysqld_exporter", &args, "mr", Instant::now()).contains("query=\"mysql_mine\""));
        assert!(page("mysqld_exporter", &args, "hr", Instant::now()).contains("mysql_up 1"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
