//! How commands show what the agent answers.

use lb_userspace::api::Level;
use serde_json::json;

use super::{Running, answers::LONG};

#[test]
fn status_has_a_line_for_each_subsystem_and_no_colour_in_a_pipe() {
    let found = Running::new(Level::Ok).lb(&["status"]);
    assert_eq!(found.code, 0);
    assert_eq!(found.stdout, "Kernel: Ok    6.18\nSource: Ok    files, 2 s old\n");
}

#[test]
fn a_failing_subsystem_degrades_the_status_and_a_warning_does_not() {
    let failing = Running::new(Level::Fail);
    let found = failing.lb(&["status", "--brief"]);
    assert_eq!((found.code, found.stdout.as_str()), (5, "n1 Fail: Kernel\n"));
    assert_eq!(failing.lb(&["status", "-o", "json"]).json()["level"], "fail");
    let found = Running::new(Level::Warn).lb(&["status", "-o", "name"]);
    assert_eq!((found.code, found.stdout.as_str()), (0, "Kernel\n"));
}

#[test]
fn services_are_a_table_of_at_most_a_hundred_columns() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["get", "services"]);
    let lines: Vec<_> = found.stdout.lines().collect();
    let head: Vec<_> = lines[0].split_whitespace().collect();
    let want = [
        "NAMESPACE",
        "NAME",
        "ADDRESS:PORT",
        "PROTO",
        "TYPE",
        "BACKENDS",
        "CONNS",
        "CPS",
        "PPS",
        "BPS",
        "DROPS",
    ];
    assert_eq!(head, want);
    assert_eq!(lines.len(), 3, "{}", found.stdout);
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{}", found.stdout);
    let wide = agent.lb(&["get", "services", "-o", "wide"]).stdout;
    assert!(wide.contains(LONG) && wide.lines().next().unwrap().ends_with("BYTES"), "{wide}");
}

#[test]
fn one_service_can_be_asked_for_and_one_that_is_not_there_is_not_found() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["get", "services", "default/web", "-o", "name"]);
    assert_eq!((found.code, found.stdout.as_str()), (0, "service/default/web\n"));
    agent
        .lb(&["get", "backends", "default/none"])
        .fails_with(4, "there is no Service default/none");
    let none = agent.lb(&["get", "services", "-n", "elsewhere"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, "no services\n"));
}

#[test]
fn backends_are_shown_with_their_share() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["get", "backends"]);
    let row: Vec<_> = found.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        ["default/web:http", "10.1.1.3:8080", "-", "active", "1", "33.3", "7", "-", "-", "-"]
    );
    let json = agent.lb(&["get", "backends", "-o", "json"]).json();
    assert_eq!((&json["apiVersion"], &json["kind"]), (&json!("lb/v1"), &json!("BackendList")));
    assert_eq!(json["items"][0]["address"], "10.1.1.3");
}

#[test]
fn a_packet_is_explained_in_lines_or_as_a_document() {
    let agent = Running::new(Level::Ok);
    let question = ["explain", "tcp", "203.0.113.9:40000", "10.96.0.10:80"];
    let text = agent.lb(&question).stdout;
    assert!(text.starts_with("verdict     forward (forwarded)\n"), "{text}");
    let json = agent.lb(&[&question[..], &["-o", "json"]].concat()).json();
    assert_eq!(json["kind"], "Explanation");
    assert_eq!(json["backend"], "10.1.2.3:40000");
}

#[test]
fn packets_of_a_file_are_answered_a_line_each_in_order() {
    let agent = Running::new(Level::Ok);
    let packets = agent.folder.path().join("packets");
    let line = |sport| {
        format!(
            r#"{{"src":"203.0.113.9","sport":{sport},"proto":"tcp","dst":"10.96.0.10","port":80}}"#
        )
    };
    std::fs::write(&packets, format!("{}\n{}\n", line(7), line(8))).unwrap();
    let found = agent.lb(&["explain", "--packets", packets.to_str().unwrap()]);
    let answers = found.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let answers: Vec<serde_json::Value> = answers.collect();
    let want = |backend: &str| {
        json!({"verdict": "forward", "reason": "forwarded", "frontend": "default/web:http",
            "backend": backend, "source": "192.168.0.2", "candidates": [backend],
            "masquerade": true, "via": "tc"})
    };
    assert_eq!(answers, [want("10.1.2.3:7"), want("10.1.2.3:8")]);
}

#[test]
fn what_the_agent_refuses_is_said_with_its_reason() {
    Running::new(Level::Ok).lb(&["plan"]).fails_with(1, "the listing is not complete yet");
}

#[test]
fn drops_have_their_last_example_and_what_to_do_and_those_that_never_happened_are_left_out() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["get", "drops", "-o", "wide"]).stdout;
    let lines: Vec<_> = found.lines().collect();
    assert_eq!(lines.len(), 3, "{found}");
    assert!(lines[1].contains("tcp 203.0.113.9:40000 > 10.96.0.10:80, 3 s ago"), "{found}");
    assert!(lines[1].contains("forwarding is on") && lines[1].ends_with("#no-route"), "{found}");
    let found = agent.lb(&["get", "drops"]).stdout;
    assert!(found.lines().all(|line| line.chars().count() <= 100), "{found}");
    let json = agent.lb(&["get", "drops", "-o", "json"]).json();
    assert_eq!(json["items"][0]["dropsPerSecond"], 0.5);
    assert_eq!(json["items"][0]["lastExample"]["secondsAgo"], 3);
}

#[test]
fn lists_are_sorted_by_any_column_numbers_from_the_largest() {
    let agent = Running::new(Level::Ok);
    let names = |by: &str| agent.lb(&["get", "drops", "--sort-by", by, "-o", "name"]).stdout;
    assert_eq!(names("count"), "drop/source-range\ndrop/no-route\n");
    assert_eq!(names("REASON"), "drop/no-route\ndrop/source-range\n");
    agent.lb(&["get", "drops", "--sort-by", "colour"]).fails_with(2, "there is no column colour");
}

#[test]
fn flows_maps_and_interfaces_are_tables_too() {
    let agent = Running::new(Level::Ok);
    let row = |words: &[&str]| {
        let found = agent.lb(words);
        let cells = found.stdout.lines().nth(1).unwrap().split_whitespace();
        cells.map(str::to_owned).collect::<Vec<_>>()
    };
    let flow = [
        "tcp",
        "established",
        "21590",
        "203.0.113.9:1",
        "10.96.0.10:80",
        "192.168.0.2:1024",
        "10.1.2.3:8080",
    ];
    assert_eq!(row(&["get", "flows"]), flow);
    assert_eq!(agent.lb(&["get", "flows", "--limit", "2", "-o", "name"]).stdout.lines().count(), 2);
    assert_eq!(row(&["get", "maps"]), ["SERVICES", "array", "2", "65536", "0.0", "4.2M"]);
    assert_eq!(row(&["get", "interfaces"]), ["eth0", "2", "xdp", "native"]);
}

#[test]
fn a_service_is_described_with_why_each_endpoint_is_used_or_not() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["describe", "service", "default/web"]);
    assert_eq!(found.code, 0, "{found:?}");
    for line in [
        "External traffic policy:  Local",
        "  +  10.1.2.3:8080  web-3  n1  7 conns  ready",
        "  -  10.1.2.4:8080  web-4  n1  7 conns  not ready",
        "       5 s ago  2 -> 1 backends, in the kernel 1.2 ms after it arrived",
    ] {
        assert!(found.stdout.lines().any(|it| it == line), "{line}\n{}", found.stdout);
    }
    let json = agent.lb(&["describe", "service", "web", "-o", "json"]).json();
    assert_eq!((&json["kind"], &json["name"]), (&json!("ServiceDescription"), &json!("web")));
    agent.lb(&["describe", "service", "default/none"]).fails_with(4, "default/none");
}
