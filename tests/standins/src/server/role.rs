//! What every long-running role does: listen on loopback, hold its data directory, and end cleanly on a signal.

use std::{
    fs::{File, OpenOptions},
    future::Future,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::log;

/// Runs a role to its end on a single-threaded runtime; the result is the exit code.
pub fn block_on(role: impl Future<Output = io::Result<()>>) -> i32 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            log::line(format!("FATAL: {e}"));
            return 1;
        }
    };
    match runtime.block_on(role) {
        Ok(()) => 0,
        Err(e) => {
            log::line(format!("FATAL: {e}"));
            1
        }
    }
}

/// Waits for SIGTERM, SIGINT or SIGQUIT.
pub async fn stop_signal() -> io::Result<&'static str> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
        _ = quit.recv() => "SIGQUIT",
    })
}

/// Listens on a loopback port.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|e| io::Error::other(format!("listen 127.0.0.1:{port}: {e}")))
}

/// Opens every file below a directory for reading and writing, as a database does with its data in the course of time.
///
/// This is what finds a tree whose ownership was changed only in part.
pub fn claim(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| named(dir, e))? {
        let entry = entry.map_err(|e| named(dir, e))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| named(&path, e))?;
        if kind.is_dir() {
            claim(&path)?;
        } else if kind.is_file() {
            OpenOptions::new()
                .read(true)
                .append(true)
                .open(&path)
                .map_err(|e| named(&path, e))?;
        }
    }
    let probe = dir.join(".write-probe");
    File::create(&probe).map_err(|e| named(dir, e))?;
    std::fs::remove_file(&probe).map_err(|e| named(dir, e))
}

/// A marker that exists while a program runs and holds a lock that a second program cannot take, in whatever container it is.
#[derive(Debug)]
pub struct Marker {
    path: PathBuf,
    _file: File,
    /// Whether the marker was left behind by a program that was not stopped cleanly, or copied while one ran.
    pub unclean: bool,
}

impl Marker {
    /// Takes the marker.
    pub fn take(path: &Path) -> io::Result<Self> {
        let unclean = path.exists();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|e| named(path, e))?;
        file.try_lock().map_err(|_| {
            io::Error::other(format!(
                "lock file \"{}\" already exists: is another server running on this data?",
                path.display()
            ))
        })?;
        std::fs::write(path, format!("{}\n", std::process::id())).map_err(|e| named(path, e))?;
        Ok(Self {
            path: path.to_owned(),
            _file: file,
            unclean,
        })
    }

    /// Removes the marker: the data are at rest.
    pub fn release(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Puts the path into an error.
pub fn named(path: &Path, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// Writes a file so that a reader sees the old or the new content.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let tmp = PathBuf::from(name);
    {
        let mut file = File::create(&tmp).map_err(|e| named(&tmp, e))?;
        io::Write::write_all(&mut file, content).map_err(|e| named(&tmp, e))?;
        file.sync_all().map_err(|e| named(&tmp, e))?;
    }
    std::fs::rename(&tmp, path).map_err(|e| named(path, e))
}

/// A pause.
pub async fn sleep(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds.max(0.0))).await;
}
