//! `lb monitor`

use std::path::PathBuf;

use super::{
    Datapath, Exit, Failure, Sampling,
    output::{self, Shown},
};
use crate::{
    api::{Example, SeenPacket},
    config::BPFFS,
};

/// Show packets as they come, sampled; programs tell nothing unless somebody watches
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what is rejected or dropped
    #[arg(long)]
    drops: bool,
    /// Only of this Service
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    /// Of packets that are not refused, one of about so many
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Stop after so many
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Where the pins are
    #[arg(long, env = "LB_BPFFS", value_name = "PATH", default_value = BPFFS)]
    bpffs: PathBuf,
    /// Write each packet as a line of text or of JSON
    #[arg(short, long, value_parser = ["line", "json"], default_value = "line")]
    output: String,
}

pub(super) fn run(args: &Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let what = Sampling {
        refused_only: args.drops,
        one_of: args.sample.checked_next_power_of_two().unwrap_or(1 << 31),
    };
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut each = |packet: &SeenPacket| {
        if left == 0 || !is_of(packet, args.service.as_deref()) {
            return Ok(left > 0);
        }
        left -= 1;
        let shown = output::write(&line(packet, args.output == "json")?)?;
        Ok(shown == Shown::Read && left > 0)
    };
    datapath.monitor(&args.bpffs, what, &mut each).map(|()| Exit::Fine)
}

fn is_of(packet: &SeenPacket, service: Option<&str>) -> bool {
    let name = packet.packet.service.as_deref().and_then(|name| name.split(':').next());
    service.is_none_or(|wanted| name == Some(wanted))
}

fn line(seen: &SeenPacket, json: bool) -> Result<String, Failure> {
    if json {
        let text = serde_json::to_string(seen);
        let text = text.map_err(|error| Failure::new(Exit::Error, error, "report this"))?;
        return Ok(text + "\n");
    }
    let SeenPacket { verdict, reason, packet, backend, bytes, .. } = seen;
    let Example { protocol, source, destination, service, hook, .. } = packet;
    let source = source.map_or_else(|| "this node".to_owned(), |source| source.to_string());
    let backend = backend.map(|backend| format!(" > {backend}")).unwrap_or_default();
    let service = service.as_deref().unwrap_or("-");
    Ok(format!(
        "{verdict:8}{reason:20}{hook:8} {protocol} {source} > {destination}{backend} {bytes} B {service}\n"
    ))
}
