//! Each setting is lost or changed once, and the comparison must say so.

use super::*;
use serde_json::json;

fn pmm2() -> State {
    State {
        container: json!({
            "Id": "0123456789abcdef", "Name": "/pmm", "RestartCount": 0, "State": {"Running": true},
            "HostConfig": {
                "Binds": ["data:/srv"], "NetworkMode": "net", "GroupAdd": ["4242"], "CpusetCpus": "0-1", "IpcMode": "private", "PidMode": "",
                "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}],
                "Memory": 2_147_483_648_u64, "Dns": [], "OomScoreAdj": 0,
                "PortBindings": {"443/tcp": [{"HostIp": "", "HostPort": "28443"}]},
            },
            "Config": {
                "Hostname": "pmm-server-1", "User": "", "Image": "pmm:2", "Env": ["PATH=/bin", "PMM_DEBUG=1"], "Cmd": ["/run-2"],
                "ExposedPorts": {"443/tcp": {}}, "Labels": {"team": "dba", "release": "2"},
            },
            "Mounts": [{"Type": "volume", "Name": "data", "Destination": "/srv", "RW": true}],
            "NetworkSettings": {"Networks": {"net": {
                "IPAMConfig": {"IPv4Address": "172.31.78.200"}, "IPAddress": "172.31.78.200", "Aliases": ["pmm-server", "0123456789ab"],
            }}},
        }),
        image: json!({"Config": {
            "Env": ["PATH=/bin"], "Cmd": ["/run-2"], "ExposedPorts": {"443/tcp": {}}, "Labels": {"release": "2"},
        }}),
    }
}

/// As a faithful re-creation on another image of PMM 2 leaves it.
fn recreated() -> State {
    let mut state = pmm2();
    let container = &mut state.container;
    container["Id"] = json!("fedcba9876543210");
    container["HostConfig"]["NetworkMode"] = json!("dark");
    container["HostConfig"]["Dns"] = Value::Null;
    container["Config"]["Image"] = json!("pmm:2.44");
    container["Config"]["Cmd"] = json!(["/run-244"]);
    container["Config"]["Labels"] = json!({"team": "dba", "release": "244", "io.pmm-fleet.role": "server"});
    container["NetworkSettings"]["Networks"]["net"]["Aliases"] = json!(["fedcba987654", "pmm-server"]);
    state.image["Config"]["Cmd"] = json!(["/run-244"]);
    state.image["Config"]["Labels"] = json!({"release": "244"});
    state
}

fn judge(now: &State) -> Result<()> {
    let mut findings = Findings::default();
    compare(&pmm2(), now, Hop::WithinPmm2, &mut findings);
    findings.finish("container")
}

#[test]
fn a_faithful_recreation_passes() {
    judge(&recreated()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_lost_or_changed_setting_is_named() {
    for (pointer, value) in [
        ("/HostConfig/GroupAdd", Value::Null),
        ("/HostConfig/CpusetCpus", json!("0")),
        ("/HostConfig/IpcMode", json!("shareable")),
        ("/HostConfig/PidMode", json!("host")),
        ("/HostConfig/Devices", json!([])),
        ("/HostConfig/Memory", json!(0)),
        ("/HostConfig/Dns", json!(["192.0.2.1"])),
        ("/HostConfig/PortBindings", json!({})),
        ("/Name", json!("/pmm-old")),
        ("/Config/User", json!("root")),
        ("/Config/Hostname", json!("fedcba987654")),
        ("/Config/Cmd", json!(["/run-2"])),
        ("/Config/Env", json!(["PATH=/bin"])),
        ("/Config/ExposedPorts", json!({"443/tcp": {}, "9/tcp": {}})),
        ("/Config/Labels", json!({"release": "244"})),
        ("/Mounts/0/RW", json!(false)),
        ("/NetworkSettings/Networks/net/IPAMConfig", Value::Null),
        ("/NetworkSettings/Networks/net/IPAddress", json!("172.31.78.9")),
        ("/NetworkSettings/Networks/net/Aliases", json!(["fedcba987654"])),
        ("/NetworkSettings/Networks", json!({})),
        ("/RestartCount", json!(1)),
    ] {
        let mut now = recreated();
        *now.container
            .pointer_mut(pointer)
            .unwrap_or_else(|| panic!("no {pointer} in the fixture")) = value;
        assert!(judge(&now).is_err(), "{pointer} was changed and not noticed");
    }
}

#[test]
fn only_a_hop_to_pmm_3_moves_ports() {
    let mut now = recreated();
    let config = &mut now.container["HostConfig"];
    config["PortBindings"] = json!({"8443/tcp": [{"HostIp": "", "HostPort": "28443"}]});
    assert!(judge(&now).is_err());
    let mut findings = Findings::default();
    compare(&pmm2(), &now, Hop::ToPmm3, &mut findings);
    let text = findings
        .finish("container")
        .map_or_else(|error| error.to_string(), |()| String::new());
    assert!(!text.contains("published ports"), "{text}");
}

#[test]
fn a_container_that_was_looked_at_is_the_same_one() {
    let judge = |now: &State| {
        let mut findings = Findings::default();
        untouched(&pmm2(), now, &mut findings);
        findings.finish("container").is_ok()
    };
    assert!(judge(&pmm2()));
    assert!(!judge(&recreated()));
}
