#![allow(clippy::unwrap_used)]
use super::*;
use fleet_common::ids::{LegId, OrderId};
use fleet_common::server::{Pmm2Update, ServerOrder};

const V2: PmmVersion = PmmVersion::new(2, 44, 1);
const V3: PmmVersion = PmmVersion::new(3, 7, 1);

fn names() -> Names {
    let order = ServerOrder {
        order: OrderId::new("r1/server-1/server/1/hop1"),
        leg: LegId::new("server-1"),
        attempt: 1,
        hop: 1,
        from: V2,
        to: V3,
        pmm2_update: Pmm2Update::Image,
        last_of_leg: false,
        accept_unsettled: false,
    };
    Names::new("pmm-server", &order, crate::names::Phase::Main)
}

fn container() -> Value {
    serde_json::from_str(include_str!("../fixtures/container-2.44.1.json")).unwrap()
}
fn image() -> Value {
    serde_json::from_str(include_str!("../fixtures/image-2.44.1.json")).unwrap()
}

fn make(container: &Value, from: PmmVersion, to: PmmVersion) -> ContainerSpec {
    spec(
        Source {
            container,
            image: &image(),
            from,
            to,
        },
        "percona/pmm-server:3.7.1",
        &names(),
    )
}

#[test]
fn everything_the_operator_chose_is_kept() {
    let old = container();
    let spec = make(&old, V2, V3);
    assert_eq!(spec.problems, Vec::<String>::new());
    let host = &spec.body["HostConfig"];
    for member in [
        "Binds",
        "Memory",
        "NanoCpus",
        "Ulimits",
        "LogConfig",
        "Dns",
        "ExtraHosts",
        "SecurityOpt",
        "ShmSize",
        "Tmpfs",
    ] {
        assert_eq!(host[member], old["HostConfig"][member], "{member}");
    }
    assert_eq!(
        host["PortBindings"],
        json!({"8443/tcp": [{"HostIp": "10.1.2.3", "HostPort": "443"}], "8080/tcp": [{"HostIp": "", "HostPort": "80"}]})
    );
    assert_eq!(host["RestartPolicy"], json!({"Name": "no"}));
    assert_eq!(
        spec.restart_policy,
        json!({"Name": "always", "MaximumRetryCount": 0})
    );
    assert_eq!(spec.body["Hostname"], "pmm.corp.example");
    assert_eq!(spec.body["Labels"]["team"], "dba");
    assert_eq!(
        spec.body["Labels"].get("org.opencontainers.image.version"),
        None,
        "the old image's label stays behind"
    );
    assert_eq!(spec.body["Labels"]["io.pmm-fleet.role"], "server");
    assert_eq!(
        spec.networks["pmm-net"],
        json!({"IPAMConfig": {"IPv4Address": "172.30.0.10"}, "Aliases": ["pmm", "pmm-server"]})
    );
    assert_eq!(spec.networks["second"], json!({}));
}

#[test]
fn what_the_old_image_brought_is_left_to_the_new_one() {
    let spec = make(&container(), V2, V3);
    for member in [
        "Cmd",
        "Entrypoint",
        "WorkingDir",
        "User",
        "Volumes",
        "Healthcheck",
    ] {
        assert_eq!(spec.body.get(member), None, "{member}");
    }
    assert_eq!(
        spec.body["Env"],
        json!([
            "PMM_ENABLE_UPDATES=false",
            "PMM_DATA_RETENTION=720h",
            "GF_SECURITY_ADMIN_PASSWORD=a$b`c"
        ])
    );
    assert_eq!(spec.body["ExposedPorts"], json!({"9999/tcp": {}}));
}

#[test]
fn within_a_major_ports_and_environment_stay() {
    let old = container();
    let spec = make(&old, PmmVersion::new(2, 41, 2), V2);
    assert_eq!(
        spec.body["HostConfig"]["PortBindings"],
        old["HostConfig"]["PortBindings"]
    );
    assert_eq!(
        spec.body["Env"],
        json!([
            "DISABLE_UPDATES=true",
            "DATA_RETENTION=30d",
            "GF_SECURITY_ADMIN_PASSWORD=a$b`c"
        ])
    );
}

#[test]
fn containers_that_cannot_be_replaced_are_refused() {
    for (pointer, value) in [
        ("/HostConfig/AutoRemove", json!(true)),
        ("/HostConfig/NetworkMode", json!("host")),
        ("/HostConfig/NetworkMode", json!("container:abc")),
    ] {
        let mut old = container();
        *old.pointer_mut(pointer).unwrap() = value;
        assert_eq!(make(&old, V2, V3).problems.len(), 1, "{pointer}");
    }
}

#[test]
fn an_anonymous_volume_is_asked_for_by_name() {
    let mut old = container();
    old["HostConfig"]["Binds"] = json!(["/etc/pmm-certs:/srv/nginx:ro"]);
    let spec = make(&old, V2, V3);
    assert_eq!(
        spec.body["HostConfig"]["Binds"],
        json!(["/etc/pmm-certs:/srv/nginx:ro", "pmm-data:/srv"])
    );
}

#[test]
fn own_health_checks_follow_the_ports() {
    let mut old = container();
    old["Config"]["Healthcheck"] = json!({"Test": ["CMD-SHELL", "curl -f http://127.0.0.1/v1/readyz || curl -fk https://localhost/ping"], "Interval": 5});
    let spec = make(&old, V2, V3);
    assert_eq!(
        spec.body["Healthcheck"]["Test"][1],
        "curl -f http://127.0.0.1:8080/v1/readyz || curl -fk https://localhost:8443/ping"
    );
}

#[test]
fn a_user_inherited_hostname_is_not_carried_over() {
    let mut old = container();
    old["Config"]["Hostname"] = json!("4f1f2b3c4d5e");
    assert_eq!(make(&old, V2, V3).body.get("Hostname"), None);
}
