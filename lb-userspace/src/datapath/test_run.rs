//! Asks the explaining programs, through BPF_PROG_TEST_RUN: nothing is attached, counted or stored.

use aya::{
    Ebpf,
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};
use lb_common::{
    abi::{Question, Report},
    packet::{Frame, Packet as _},
    wire::Header as _,
};

/// Room for what the programs make of a frame: an ICMP answer is longer than what it answers.
const ROOM: usize = 512;

/// A question that a program could not be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the object has no program {0}")]
    Missing(&'static str),
    #[error("program {name} cannot be run: {source}")]
    Run { name: &'static str, source: ProgramError },
    #[error("program {name} gave no answer: it ended with {code}")]
    Silent { name: &'static str, code: u32 },
}

/// The two programs that explain.
#[derive(Clone, Copy, Debug)]
pub struct Oracle<'a> {
    packet: &'a Xdp,
    socket: &'a Xdp,
}

const PACKET: &str = "explain_packet";
const SOCKET: &str = "explain_socket";
const XDP_PASS: u32 = 2;

impl<'a> Oracle<'a> {
    /// The programs of a loaded object.
    ///
    /// # Errors
    /// If it lacks one of them.
    pub fn of(object: &'a Ebpf) -> Result<Self, AskError> {
        let program = |name| {
            let program = object.program(name).and_then(|program| program.try_into().ok());
            program.ok_or(AskError::Missing(name))
        };
        Ok(Self { packet: program(PACKET)?, socket: program(SOCKET)? })
    }

    /// The fate of a frame that comes in on an uplink.
    ///
    /// # Errors
    /// If the program cannot be run or does not answer.
    pub fn packet(&self, frame: &[u8]) -> Result<Report, AskError> {
        ask(PACKET, self.packet, frame)
    }

    /// The fate of a connection that starts on this node.
    ///
    /// # Errors
    /// As for [`Oracle::packet`].
    pub fn socket(&self, question: &Question) -> Result<Report, AskError> {
        let mut bytes = [0; Question::LEN];
        let mut frame = Frame::new(&mut bytes, Question::LEN);
        if let Some(place) = frame.get_mut(0) {
            *place = *question;
        }
        ask(SOCKET, self.socket, frame.bytes())
    }
}

/// Runs a program once on these bytes and reads the report that stands at their start then.
fn ask(name: &'static str, program: &Xdp, bytes: &[u8]) -> Result<Report, AskError> {
    let mut answer = [0; ROOM];
    let data_out = Some(&mut answer[..]);
    let options = TestRunOptions { data_in: Some(bytes), data_out, ..TestRunOptions::new() };
    let run = program.test_run(options).map_err(|source| AskError::Run { name, source })?;
    let code = run.return_value;
    let length = (run.data_size_out as usize).min(ROOM);
    let report = Frame::new(&mut answer, length).get(0).copied();
    report.filter(|_| code == XDP_PASS).ok_or(AskError::Silent { name, code })
}
