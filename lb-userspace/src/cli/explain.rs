//! `lb explain`

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Instant,
};

use clap::ValueEnum;

use super::{
    Datapath, Exit, Failure,
    output::{self, Document, Format, FormatArg, structured},
    place::Place,
    status::SocketArg,
};
use crate::{
    api::{AskError, Explanation, Packet, Request, Response},
    config::{Config, Options, SourceKind},
    explain, host,
};

/// Show what would become of a packet, as the kernel programs decide it
///
/// On the running agent or what it left pinned, or with -f on a private instance for those manifests:
/// lb explain tcp 203.0.113.9:40000 10.96.0.10:80
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum, requires = "destination", required_unless_present = "packets")]
    protocol: Option<Transport>,
    /// Where it comes from; any port will do if none is given
    #[arg(value_name = "ADDRESS[:PORT]")]
    source_address: Option<Source>,
    /// Where it goes to
    #[arg(value_name = "ADDRESS:PORT")]
    destination: Option<SocketAddr>,
    /// TCP flags by name, such as SYN or SYN,ACK; for SCTP the chunk that is like them (INIT, INIT
    /// ACK) [default: SYN]
    #[arg(long)]
    flags: Option<String>,
    /// Questions in a file, one JSON object a line; one answer a line comes out
    #[arg(long, value_name = "FILE", conflicts_with_all = ["protocol", "flags", "output"])]
    packets: Option<PathBuf>,
    /// Say on standard error how many packets a second were answered
    #[arg(long, requires = "packets")]
    rate: bool,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// An address with or without a port.
#[derive(Clone, Copy, Debug)]
struct Source(IpAddr, Option<u16>);

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let with_port = text.parse::<SocketAddr>().map(|it| Self(it.ip(), Some(it.port())));
        let wrong = |_| format!("`{text}` is neither an address nor an address with a port");
        with_port.or_else(|_| text.parse().map(|address| Self(address, None))).map_err(wrong)
    }
}

pub(super) fn run(args: Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let packets = match (&args.packets, args.protocol, args.source_address, args.destination) {
        (Some(file), ..) => read_packets(file)?,
        (None, Some(protocol), Some(Source(src, sport)), Some(to)) => vec![Packet {
            src,
            sport,
            proto: protocol.name().into(),
            dst: to.ip(),
            port: to.port(),
            flags: args.flags,
        }],
        _ => {
            let what = "a packet has a protocol, a source and a destination";
            return Err(Failure::new(Exit::Usage, what, "see `lb explain --help`"));
        }
    };
    explain::check(&packets)?;
    let config = Config::load(args.options, &host::name())?;
    let began = Instant::now();
    let (answers, took) = match config.source {
        SourceKind::Files => datapath.explain(&config, &packets)?,
        SourceKind::Kubernetes => {
            let place = Place { socket: SocketArg { socket: config.socket }, bpffs: config.bpffs };
            match place.fetch(&Request::Explain { packets }, datapath)?.or_warn() {
                Response::Explain(answers) => (answers, began.elapsed()),
                _ => return Err(AskError::Answer("it explains nothing".into()).into()),
            }
        }
    };
    if args.rate {
        let a_second = answers.len() as f64 / took.as_secs_f64().max(1e-9);
        eprintln!("{} packets in {took:.1?}: {a_second:.0} a second", answers.len());
    }
    let text = match &args.packets {
        Some(_) => lines(&answers)?,
        None => answers.first().map_or(Ok(String::new()), |it| render(it, args.format.output))?,
    };
    output::write(&text).map(|_| Exit::Fine)
}

/// One answer as text.
pub fn render(answer: &Explanation, format: Format) -> Result<String, Failure> {
    if matches!(format, Format::Json | Format::Yaml) {
        return structured(&Document::new("Explanation", answer), format);
    }
    let Explanation {
        verdict,
        reason,
        frontend,
        backend,
        source,
        candidates,
        masquerade,
        via,
        node,
        steps,
    } = answer;
    let verdict = word(verdict);
    if format == Format::Name {
        return Ok(format!("{verdict}\n"));
    }
    let candidates: Vec<_> = candidates.iter().map(ToString::to_string).collect();
    let lines = [
        ("verdict", Some(format!("{verdict} ({reason})"))),
        ("frontend", frontend.clone()),
        ("candidates", Some(candidates.join(" ")).filter(|text| !text.is_empty())),
        ("backend", backend.map(|backend| backend.to_string())),
        ("node", node.clone()),
        ("source", source.map(|source| source.to_string())),
        ("masquerade", Some(masquerade.to_string())),
        ("via", via.as_ref().map(word)),
    ];
    let line = |(key, value): (&str, Option<String>)| Some(format!("{key:12}{}\n", value?));
    let summary: String = lines.into_iter().filter_map(line).collect();
    let steps =
        (1..).zip(steps).map(|(at, step)| format!("{at:2} {:9}{}\n", step.name, step.detail));
    let steps: String = steps.collect();
    Ok(if steps.is_empty() { summary } else { format!("{summary}\n{steps}") })
}

/// The name that JSON has for a variant.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn read_packets(file: &Path) -> Result<Vec<Packet>, Failure> {
    let failure = |what: String| {
        let what_to_do = r#"write one object a line: {"src","sport","proto","dst","port"}"#;
        Failure::new(Exit::Error, format_args!("{}{what}", file.display()), what_to_do)
    };
    let text = fs::read_to_string(file).map_err(|error| failure(format!(": {error}")))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(number, line)| {
        serde_json::from_str(line).map_err(|error| failure(format!(":{number}: {error}")))
    });
    read.collect()
}

fn lines(answers: &[Explanation]) -> Result<String, Failure> {
    // A line is an answer, not its story.
    let line = |answer: &Explanation| {
        let answer = Explanation { steps: Vec::new(), ..answer.clone() };
        Ok(serde_json::to_string(&answer)? + "\n")
    };
    let lines: Result<String, serde_json::Error> = answers.iter().map(line).collect();
    lines
        .map_err(|error| Failure::new(Exit::Error, error, "report this: an answer that is no JSON"))
}
