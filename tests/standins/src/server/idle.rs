//! Programs that only have to be there: they answer their health check and end on a signal.

use std::{io, sync::Arc};

use super::{
    http::{self, Req, Resp},
    log, role,
};

/// The port of vmalert.
pub const VMALERT: u16 = 8880;

async fn healthy(name: &str, port: u16) -> io::Result<()> {
    let listener = role::listen(port).await?;
    log::line(format!("info: {name} is listening on 127.0.0.1:{port}"));
    let handler = http::handler(Arc::new(()), |_, _: Req| async {
        Resp::new(200, "text/plain", "OK")
    });
    tokio::spawn(http::serve(listener, None, handler));
    role::stop_signal().await.map(|_| ())
}

/// vmalert.
pub async fn vmalert() -> io::Result<()> {
    healthy("vmalert", VMALERT).await
}

/// Alertmanager of PMM 2.
pub async fn alertmanager() -> io::Result<()> {
    healthy("alertmanager", 9093).await
}

/// The DBaaS controller of PMM 2.
pub async fn dbaas() -> io::Result<()> {
    healthy("dbaas-controller", 20201).await
}
