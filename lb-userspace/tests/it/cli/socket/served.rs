//! Who may connect, and what the server makes of those who do.

use std::{os::unix::fs::PermissionsExt, path::Path};

use lb_userspace::api::{BindError, Level, bind};

use super::{super::lb_with, Running};

#[test]
fn the_socket_is_for_its_owner_and_group_and_an_outsider_gets_exit_code_3() {
    use std::os::unix::process::CommandExt;
    let agent = Running::new(Level::Ok);
    let mode = std::fs::metadata(agent.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(agent.folder.path(), open).unwrap();
    let socket = agent.socket();
    let arguments = ["status", "--socket", socket.to_str().unwrap()];
    let outsider = |command: &mut std::process::Command| {
        command.uid(65534).gid(65534);
    };
    lb_with(&arguments, outsider, "").fails_with(3, "Permission denied");
    // Even where the mode lets it in.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    lb_with(&arguments, outsider, "")
        .fails_with(1, "you are neither root nor of the agent's group");
    // A member of the group, by its first or by another.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).unwrap();
    let operators = 4242;
    std::os::unix::fs::chown(&socket, None, Some(operators)).unwrap();
    let first = lb_with(&arguments, |command| _ = command.uid(65534).gid(operators), "");
    assert_eq!(first.code, 0, "{first:?}");
    let member = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", &format!("--groups=77,{operators}")])
        .arg(env!("CARGO_BIN_EXE_lb"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(member.status.success(), "{member:?}");
}

#[test]
fn who_connects_and_says_nothing_does_not_keep_a_server_from_ending() {
    let mut agent = Running::new(Level::Ok);
    let silent = std::os::unix::net::UnixStream::connect(agent.socket()).unwrap();
    assert_eq!(agent.lb(&["status"]).code, 0, "and that one was taken after the silent one");
    agent.stop.cancel();
    let served = agent.served.take().unwrap();
    agent.runtime.block_on(served).unwrap();
    drop(silent);
}

#[test]
fn a_second_agent_is_refused_and_a_dead_one_is_replaced() {
    let agent = Running::new(Level::Ok);
    let bound = agent.runtime.block_on(bind(&agent.socket()));
    assert!(matches!(bound, Err(BindError::Taken(path)) if path == agent.socket()));
    let left_behind = agent.folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&left_behind).unwrap());
    assert!(Path::new(&left_behind).exists());
    assert!(agent.runtime.block_on(bind(&left_behind)).is_ok());
}

#[test]
fn a_question_that_makes_no_sense_is_answered_and_the_next_one_too() {
    use std::io::{BufRead, BufReader, Write};
    let agent = Running::new(Level::Ok);
    let mut stream = std::os::unix::net::UnixStream::connect(agent.socket()).unwrap();
    stream.write_all(b"{\"request\":\"flush\"}\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["response"], "refused");
    assert_eq!(agent.lb(&["status"]).code, 0);
}
