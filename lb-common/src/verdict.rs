//! What happens to a packet, and why. A [`Reason`] names every end a packet can come to; its number
//! is the index of its counter, its name the metric label, the CLI row and the anchor in the docs.

/// What the hook does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: left untouched.
    Pass,
    /// Rewritten; the stack of this node takes it from here (a local backend, or on to the wire).
    Deliver,
    /// Rewritten and sent to a next hop.
    Forward,
    /// Answered in the place of the one who was asked; not refused.
    Answer,
    /// Answered with a TCP RST, or with an ICMP error: port unreachable, or too big.
    Reject,
    /// Dropped in silence.
    Drop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal: $verdict:ident),* $(,)?) => {
        /// Why a packet met its verdict.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in metrics, tables and docs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// What it means for the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict),* }
            }
        }
    };
}

reasons! {
    /// Neither IPv4 nor IPv6, or too short to tell.
    NotIp = "not-ip": Pass,
    /// To no frontend, and from no flow of ours.
    NotService = "not-service": Pass,
    /// XDP leaves it, unmodified, to the tc program behind it.
    NeedsStack = "needs-stack": Pass,
    /// TCP or SCTP in mid-stream without a flow while connections of an earlier proxy are taken over.
    Takeover = "takeover": Pass,
    /// A socket's connection or datagram, or a packet, to a backend on this node; a packet out of a pod
    /// to any backend.
    ToLocal = "to-local": Deliver,
    /// A reply of a local backend on its way out, or of any backend to a pod.
    ReplyLocal = "reply-local": Deliver,
    /// To a backend on another node, or out of a pod to itself.
    ToRemote = "to-remote": Forward,
    /// With DSR, in an envelope, to the node that has a backend for it.
    ToNode = "to-node": Forward,
    /// The reply of a backend on another node, back to the client.
    ReplyRemote = "reply-remote": Forward,
    /// An ICMP error about a flow, to or from a backend on this node.
    ErrorLocal = "error-local": Deliver,
    /// An ICMP error about a flow, to or from a backend on another node.
    ErrorRemote = "error-remote": Forward,
    /// An echo request to an external address of a Service.
    Echo = "echo": Answer,
    /// No endpoint anywhere.
    NoEndpoints = "no-endpoints": Reject,
    /// A port that a live ClusterIP does not serve.
    UnknownPort = "unknown-port": Reject,
    /// TCP or SCTP in mid-stream that belongs to no flow.
    UnknownFlow = "unknown-flow": Reject,
    /// The backend of the flow is gone for good.
    BackendGone = "backend-gone": Reject,
    /// An echo request to a ClusterIP, which is nobody's.
    EchoRefused = "echo-refused": Reject,
    /// Too long for the way out: the sender is told what fits, unless it lets routers fragment.
    TooBig = "too-big": Reject,
    /// There are endpoints, but the traffic policy allows none of them here.
    NoLocalEndpoints = "no-local-endpoints": Drop,
    /// The source is outside loadBalancerSourceRanges.
    SourceRange = "source-range": Drop,
    /// An address of the service CIDRs that no Service has.
    UnallocatedAddress = "unallocated-address": Drop,
    /// The flow table has no room for one more.
    FlowTableFull = "flow-table-full": Drop,
    /// No source port is free towards the backend.
    SnatPortsFull = "snat-ports-full": Drop,
    /// Half of the flow table, or of the source ports towards the backend, is with flows that nobody has
    /// answered.
    HalfOpenFull = "half-open-full": Drop,
    /// Another CPU held the flow's set for too long.
    Contended = "contended": Drop,
    /// Tables changed under the look-up, twice.
    StaleAnswer = "stale-answer": Drop,
    /// This node has no route to the next hop.
    NoRoute = "no-route": Drop,
    /// TTL or hop limit would reach zero here.
    TtlExpired = "ttl-expired": Drop,
    /// Lengths in the headers contradict the frame.
    BadLength = "bad-length": Drop,
    /// IPv6 extension headers that nobody may read past, or too many, to a service address.
    ExtensionHeaders = "extension-headers": Drop,
    /// A fragment that cannot be followed, to a service address.
    Fragment = "fragment": Drop,
    /// An ICMP error about no flow of ours, to a service address.
    ErrorUnknown = "error-unknown": Drop,
    /// None of TCP, UDP and SCTP, nor ICMP that has a rule, to a service address.
    Protocol = "protocol": Drop,
    /// The packet could not be rewritten where it lay.
    NotLinear = "not-linear": Drop,
    /// It would be refused with a RST or an ICMP error, but enough of those were sent.
    AnswerLimit = "answer-limit": Drop,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}
