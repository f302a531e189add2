//! What random frames have found, kept: each file of `corpus/` says in a sentence what it was, and has the
//! towns and the frames that show it. Kernel and rules agree on all of them now.
//!
//! A line is `town FAMILY PROTOCOL HERE THERE [NOW/BEFORE]` (backends on this node and elsewhere, and with
//! DSR what every slot of the ring says), or `PROGRAM REASON FRAME`.

use std::{fs, path::Path};

use lb_common::verdict::Reason;

use super::{
    both::{Both, patient, tell, towns},
    kernel::Program,
    town::Town,
};

/// A town, and what comes of frames there.
struct Finding {
    town: Town,
    frames: Vec<(Program, Reason, Vec<u8>)>,
}

fn town(words: &[&str]) -> Town {
    let [family, protocol, here, there, spread @ ..] = words else { panic!("a town: {words:?}") };
    let number = |text: &str| text.parse().expect("a number");
    let all = patient(towns(number(here), number(there)));
    let protocol = ["tcp", "udp", "sctp"].iter().position(|name| name == protocol);
    let place = protocol.expect("a protocol") + if *family == "v6" { 3 } else { 0 };
    let town = all.into_iter().nth(place).expect("six towns");
    let slots: Vec<(u32, u32)> = spread
        .iter()
        .map(|slot| {
            let (now, before) = slot.split_once('/').expect("now and before");
            (now.parse().expect("a node"), before.parse().expect("a node"))
        })
        .collect();
    if slots.is_empty() { town } else { town.spread(&slots) }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn read(text: &str) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [program, reason, frame] = words[..] else {
            findings.push(Finding { town: town(&words[1..]), frames: Vec::new() });
            continue;
        };
        let program = match program {
            "xdp" => Program::Xdp,
            "ingress" => Program::Ingress,
            "egress" => Program::Egress,
            other => panic!("{other} is no program"),
        };
        let reason = Reason::ALL.iter().find(|it| it.label() == reason).expect("a reason");
        let last = findings.last_mut().expect("a town before its frames");
        last.frames.push((program, *reason, bytes(frame)));
    }
    findings
}

#[test]
fn what_random_frames_once_found_stays_mended() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/packet/corpus");
    let mut paths: Vec<_> =
        fs::read_dir(corpus).expect("the corpus").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 2, "{paths:?}");
    for path in paths {
        let text = fs::read_to_string(&path).expect("a finding");
        assert!(text.starts_with("# "), "{} says what it is", path.display());
        let findings = read(&text);
        assert!(!findings.is_empty(), "{} is empty", path.display());
        for Finding { town, frames } in findings {
            let mut frames = Some(frames);
            tell(vec![town], |both: &mut Both| {
                for (program, reason, frame) in frames.take().expect("one town") {
                    let run = both.run(program, &frame);
                    assert_eq!(run.reason, reason, "{}", path.display());
                }
            });
        }
    }
}
