//! The kernel as the rules see it: maps, clock, randomness, routing.

use aya_ebpf::maps::lpm_trie::Key;
use lb_common::{
    abi::{Backend, FlowSet, Frontend, FrontendKey, Line, NextHop, Service, Settings, SourceKey},
    addr::{V4, V6},
    flow::Tuple,
    path::Hook,
    world::{Route, Store, World},
};

use crate::{helpers, maps, route};

/// The live tables, or with `LIVE = false` the same tables for reading only.
pub struct Kernel<const LIVE: bool> {
    pub place: route::Place,
}

impl<const LIVE: bool> World for Kernel<LIVE> {
    const LIVE: bool = LIVE;

    #[inline(always)]
    fn hook(&self) -> Hook {
        self.place.hook
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<&Service> {
        maps::SERVICES.get(id)
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        maps::ARENA.get(index)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        maps::BACKENDS.get(id)
    }

    /// The coarse clock costs a few nanoseconds (kernel 5.11).
    #[inline(always)]
    fn now(&self) -> u32 {
        (helpers::coarse_time() >> Settings::TICK_SHIFT) as u32
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        helpers::random()
    }
}

macro_rules! store {
    ($family:ty, $frontend:ident, $locals:ident, $sources:ident, $flows:ident) => {
        impl<const LIVE: bool> Store<$family> for Kernel<LIVE> {
            #[inline(always)]
            fn frontend(&self, key: &FrontendKey<$family>) -> Option<Frontend> {
                maps::$frontend(key)
            }

            #[inline(always)]
            fn is_local_backend(&self, key: &FrontendKey<$family>) -> bool {
                maps::$locals.get_ptr(key).is_some()
            }

            #[inline(always)]
            fn allows_source(&self, service: u32, source: $family) -> bool {
                let key = Key::new(SourceKey::<$family>::BITS, SourceKey::new(service, source));
                maps::$sources.get(key).is_some()
            }

            #[inline(always)]
            fn flow_set(&self, index: u32) -> Option<&FlowSet<$family>> {
                maps::$flows.get(index)
            }

            #[inline(always)]
            fn route(&self, tuple: &Tuple<$family>, length: u16) -> Route {
                if !LIVE {
                    return Route::Hop(NextHop::default());
                }
                self.place.route(tuple, length)
            }
        }
    };
}

store!(V4, frontend_v4, LOCALS_V4, SOURCES_V4, FLOWS_V4);
store!(V6, frontend_v6, LOCALS_V6, SOURCES_V6, FLOWS_V6);
