//! `wasi:io` for instances that cannot suspend: what is ready is done, what would wait traps.
//!
//! The library's own synchronous bindings wait inside a runtime of their own, which is not
//! possible on a thread that runs one already. Here every stream is ready at all times (the log,
//! and an input that is closed), so only waiting for a clock is lost.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};
use wasmtime_wasi::runtime::poll_noop;

use crate::guest_state::GuestState;

/// Adds `wasi:io/poll` and `wasi:io/streams`, in place of those in the linker.
///
/// # Errors
/// Never, unless the library changes.
pub(super) fn replace_io(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let added = poll::add_to_linker::<_, HasImmediate>(linker, immediate)
        .and_then(|()| streams::add_to_linker::<_, HasImmediate>(linker, immediate));
    linker.allow_shadowing(false);
    added
}

fn immediate(state: &mut GuestState) -> Immediate<'_> {
    Immediate(state.ctx().table)
}

struct HasImmediate;

impl HasData for HasImmediate {
    type Data<'a> = Immediate<'a>;
}

struct Immediate<'a>(&'a mut ResourceTable);

impl poll::Host for Immediate<'_> {
    fn poll(&mut self, _: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        Err(would_wait())
    }
}

impl poll::HostPollable for Immediate<'_> {
    fn ready(&mut self, _: Resource<DynPollable>) -> wasmtime::Result<bool> {
        Err(would_wait())
    }

    fn block(&mut self, _: Resource<DynPollable>) -> wasmtime::Result<()> {
        Err(would_wait())
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(self.0, pollable)
    }
}

impl streams::Host for Immediate<'_> {
    fn convert_stream_error(
        &mut self,
        error: StreamError,
    ) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.0, error)
    }
}

impl streams::HostInputStream for Immediate<'_> {
    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        streams::HostInputStream::read(self.0, stream, len)
    }

    fn blocking_read(
        &mut self,
        stream: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<Vec<u8>> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let read = self.0.get_mut(&stream)?.blocking_read(len);
        Ok(at_once(read)??.to_vec())
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        streams::HostInputStream::skip(self.0, stream, len)
    }

    fn blocking_skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let skipped = self.0.get_mut(&stream)?.blocking_skip(len);
        Ok(at_once(skipped)?? as u64)
    }

    fn subscribe(
        &mut self,
        stream: Resource<DynInputStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostInputStream::subscribe(self.0, stream)
    }

    fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        self.0.delete(stream)?;
        Ok(())
    }
}

impl streams::HostOutputStream for Immediate<'_> {
    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        streams::HostOutputStream::check_write(self.0, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        streams::HostOutputStream::write(self.0, stream, bytes)
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        if bytes.len() > BLOCKING_WRITE_BYTES_MAX {
            return Err(StreamError::trap(
                "more than 4096 bytes for blocking-write-and-flush",
            ));
        }
        let written = self
            .0
            .get_mut(&stream)?
            .blocking_write_and_flush(bytes.into());
        at_once(written)?
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        streams::HostOutputStream::flush(self.0, stream)
    }

    fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        let stream = self.0.get_mut(&stream)?;
        stream.flush()?;
        at_once(stream.write_ready())?.map(drop)
    }

    fn subscribe(
        &mut self,
        stream: Resource<DynOutputStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostOutputStream::subscribe(self.0, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        streams::HostOutputStream::write_zeroes(self.0, stream, len)
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        let zeroes = usize::try_from(len)
            .ok()
            .filter(|len| *len <= BLOCKING_WRITE_BYTES_MAX);
        let zeroes =
            vec![0; zeroes.ok_or_else(|| StreamError::trap("more than 4096 zeroes at once"))?];
        self.blocking_write_and_flush(stream, zeroes)
    }

    fn splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        streams::HostOutputStream::splice(self.0, to, from, len)
    }

    fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        streams::HostOutputStream::splice(self.0, to, from, len)
    }

    fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        self.0.delete(stream)?;
        Ok(())
    }
}

/// The result of a future that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> Result<T, StreamError> {
    poll_noop(std::pin::pin!(future)).ok_or_else(|| StreamError::Trap(would_wait()))
}

fn would_wait() -> wasmtime::Error {
    wasmtime::Error::msg("waiting is not possible in this phase")
}

/// By the contract of the interface.
const BLOCKING_WRITE_BYTES_MAX: usize = 4096;
