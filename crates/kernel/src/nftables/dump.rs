//! What our tables hold, read from the kernel.

use std::collections::BTreeMap;

use model::net::Family;
use model::ruleset::{ChainSnapshot, ElementKind, SetSnapshot, Snapshot, TABLE, TableSnapshot};
use nix::errno::Errno;

use super::attr::Reader;
use super::element::{self, Form};
use super::message::{self, FAMILY_HEADER_LEN, family_number};
use super::names::{self, message as kind};
use super::transport::{Listing, Transport};
use super::{Error, generation};

/// How often the tables are read until nothing changes meanwhile.
const ATTEMPTS: u32 = 20;

/// Reads our tables as they were at one time.
pub(super) fn snapshot(transport: &mut Transport) -> Result<Snapshot, Error> {
    for _ in 0..ATTEMPTS {
        let before = generation(transport)?;
        let mut reading = Reading { transport, is_interrupted: false };
        let tables = reading.tables()?;
        let is_interrupted = reading.is_interrupted;
        if !is_interrupted && generation(transport)? == before {
            return Ok(Snapshot { generation: before, tables });
        }
    }
    Err(Error::KeepsChanging { attempts: ATTEMPTS })
}

/// One attempt to read everything.
struct Reading<'a> {
    transport: &'a mut Transport,
    is_interrupted: bool,
}

impl Reading<'_> {
    fn tables(&mut self) -> Result<BTreeMap<Family, TableSnapshot>, Error> {
        let mut tables = BTreeMap::new();
        for family in Family::ALL {
            let found = self.list("tables", (kind::GET_TABLE, family), &[])?;
            let ours = found
                .iter()
                .map(|body| attributes(body))
                .find(|table| table.text(names::table::NAME).as_deref() == Some(TABLE));
            let Some(table) = ours else { continue };
            let flags = table.number(names::table::FLAGS);
            let mut snapshot = TableSnapshot { is_strange: flags != Some(0), ..Default::default() };
            self.chains(family, &mut snapshot)?;
            self.rules(family, &mut snapshot)?;
            self.sets(family, &mut snapshot)?;
            tables.insert(family, snapshot);
        }
        Ok(tables)
    }

    fn chains(&mut self, family: Family, table: &mut TableSnapshot) -> Result<(), Error> {
        for body in self.list("chains", (kind::GET_CHAIN, family), &[])? {
            let chain = attributes(&body);
            if chain.text(names::chain::TABLE).as_deref() != Some(TABLE) {
                continue;
            }
            let Some(name) = chain.text(names::chain::NAME) else { continue };
            let base = message::read_base(chain);
            let snapshot = ChainSnapshot {
                is_strange: base.is_err(),
                base: base.unwrap_or_default(),
                rules: Vec::new(),
            };
            table.chains.insert(name, snapshot);
        }
        Ok(())
    }

    fn rules(&mut self, family: Family, table: &mut TableSnapshot) -> Result<(), Error> {
        let ours = [(names::rule::TABLE, TABLE)];
        for body in self.list("rules", (kind::GET_RULE, family), &ours)? {
            let rule = attributes(&body);
            let name = rule.text(names::rule::CHAIN).unwrap_or_default();
            let Some(chain) = table.chains.get_mut(&name) else { continue };
            chain.rules.push(rule.find(names::rule::USERDATA).and_then(message::read_id));
        }
        Ok(())
    }

    fn sets(&mut self, family: Family, table: &mut TableSnapshot) -> Result<(), Error> {
        let ours = [(names::set::TABLE, TABLE)];
        for body in self.list("sets", (kind::GET_SET, family), &ours)? {
            let set = attributes(&body);
            let Some(name) = set.text(names::set::NAME) else { continue };
            let form = Form {
                flags: set.number(names::set::FLAGS).unwrap_or_default(),
                key_type: set.number(names::set::KEY_TYPE).unwrap_or_default(),
                key_len: set.number(names::set::KEY_LEN).unwrap_or_default(),
                data_type: set.number(names::set::DATA_TYPE),
                data_len: set.number(names::set::DATA_LEN),
            };
            let is_form = |found: &ElementKind| is_same(element::form(*found, family), form);
            let snapshot = match element::KINDS.into_iter().find(is_form) {
                Some(found) => element::read(found, family, &self.elements(family, &name)?),
                None => SetSnapshot::default(),
            };
            table.sets.insert(name, snapshot);
        }
        Ok(())
    }

    fn elements(&mut self, family: Family, set: &str) -> Result<Vec<Vec<u8>>, Error> {
        let which = [(names::element::TABLE, TABLE), (names::element::SET, set)];
        let mut found = Vec::new();
        for body in self.list("elements", (kind::GET_ELEMENTS, family), &which)? {
            let list = attributes(&body).within(names::element::ELEMENTS);
            found.extend(list.all().map(|(_, element)| element.to_vec()));
        }
        Ok(found)
    }

    /// Lists objects; nothing is found where something changed meanwhile.
    fn list(
        &mut self,
        what: &'static str,
        (kind, family): (u16, Family),
        filter: &[(u16, &str)],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let listing = self.transport.list(what, (kind, family_number(family)), |body| {
            for (attribute, value) in filter {
                body.text(*attribute, value);
            }
        });
        match listing {
            Ok(Listing::Complete(found)) => Ok(found),
            // Also if what was listed a moment ago is gone.
            Ok(Listing::Interrupted) | Err(Error::Unreadable { errno: Errno::ENOENT, .. }) => {
                self.is_interrupted = true;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// Is what the kernel found to be a set's form the one that we gave it? It says
/// the length of data only where it is not a verdict.
fn is_same(wanted: Form, found: Form) -> bool {
    let data_len = found.data_type.filter(|kind| *kind != names::VERDICT_TYPE).and(found.data_len);
    wanted == Form { data_len, ..found }
}

fn attributes(body: &[u8]) -> Reader<'_> {
    Reader(body.get(FAMILY_HEADER_LEN..).unwrap_or_default())
}
