//! The proxy's table in the kernel: the whole of it, or the difference that some changes make.

use std::collections::BTreeMap;

use super::elements::{Choice, Element, Rendered, render};
use super::rules::{Networks, base, cluster_ip_element, hairpin_element};
use super::tables::{Changes, Tables};
use crate::netlink::Error;
use crate::nftables::{Batch, Data, Disturbance, Edit, Programmed};

/// The table and what is known of its content.
#[derive(Debug)]
pub struct Program {
    table: Programmed,
    networks: Networks,
    /// For how many frontends each choice was made that has a chain.
    choices: BTreeMap<Choice, usize>,
    /// What the kernel holds is not known: everything must be written.
    unknown: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Nothing,
    /// The difference only.
    Partly,
    Whole,
}

impl Program {
    /// Nothing is changed before the first [`Program::apply`].
    pub fn open(table: impl Into<String>, networks: Networks) -> Result<Program, Error> {
        let table = Programmed::open(table)?;
        Ok(Program { table, networks, choices: BTreeMap::new(), unknown: true })
    }

    /// Somebody changed the table: the next [`Program::apply`] replaces it.
    pub fn forget(&mut self) {
        self.unknown = true;
    }

    pub fn disturbance(&self) -> Result<Disturbance, Error> {
        self.table.disturbance()
    }

    /// Makes the table hold `tables`. `changes` are all since the last success.
    pub fn apply(&mut self, tables: &Tables, changes: &Changes) -> Result<Applied, Error> {
        if !self.unknown {
            let (edit, made) = self.difference(tables, changes);
            if edit.is_empty() {
                self.count(made);
                return Ok(Applied::Nothing);
            }
            let mut batch = Batch::default();
            batch.edit(self.table.name(), &edit);
            match self.table.commit(batch) {
                Ok(()) => {
                    self.count(made);
                    return Ok(Applied::Partly);
                }
                Err(error) => {
                    tracing::warn!(%error, "nf_tables refused a change of services, replacing the table");
                    self.unknown = true;
                }
            }
        }
        let (edit, made) = whole(tables);
        let mut batch = Batch::replace(&base(self.table.name(), &self.networks));
        batch.edit(self.table.name(), &edit);
        self.table.commit(batch)?;
        self.choices.clear();
        self.count(made);
        self.unknown = false;
        Ok(Applied::Whole)
    }

    /// Takes account of what was programmed.
    fn count(&mut self, made: Made) {
        for (choice, more) in made {
            let frontends = self.choices.get(&choice).copied().unwrap_or_default();
            let frontends = frontends.saturating_add_signed(more);
            if frontends == 0 {
                self.choices.remove(&choice);
            } else {
                self.choices.insert(choice, frontends);
            }
        }
    }

    fn difference(&self, tables: &Tables, changes: &Changes) -> (Edit, Made) {
        let mut difference = Difference::default();
        for (frontend, was) in &changes.frontends {
            let is = tables.backends(frontend);
            if was.as_ref() != is {
                let rendered = |backends| render(frontend, backends);
                difference.replace(
                    was.as_ref().map(rendered).unwrap_or_default(),
                    is.map(rendered).unwrap_or_default(),
                );
            }
        }
        for (address, was) in &changes.cluster_ips {
            difference.toggle(cluster_ip_element(*address), *was, tables.has_cluster_ip(address));
        }
        for (address, was) in &changes.local_endpoints {
            difference.toggle(hairpin_element(*address), *was, tables.has_local_endpoint(address));
        }
        difference.finish(&self.choices)
    }
}

fn whole(tables: &Tables) -> (Edit, Made) {
    let mut difference = Difference::default();
    for (frontend, backends) in tables.frontends() {
        difference.replace(Rendered::default(), render(frontend, backends));
    }
    tables.cluster_ips().for_each(|ip| difference.toggle(cluster_ip_element(*ip), false, true));
    tables.local_endpoints().for_each(|ip| difference.toggle(hairpin_element(*ip), false, true));
    difference.finish(&BTreeMap::new())
}

/// For how many frontends more a choice is made than before. Only what changes is here: there may be as many choices as
/// Services.
type Made = BTreeMap<Choice, isize>;

/// Collects what becomes of elements and chains.
#[derive(Default)]
struct Difference {
    edit: Edit,
    made: Made,
}

impl Difference {
    fn replace(&mut self, was: Rendered, is: Rendered) {
        for choice in was.choices {
            *self.made.entry(choice).or_default() -= 1;
        }
        for choice in is.choices {
            *self.made.entry(choice).or_default() += 1;
        }
        let mut kept: BTreeMap<(String, Vec<u8>), Data> =
            was.elements.into_iter().map(|(set, key, data)| ((set, key), data)).collect();
        for (set, key, data) in is.elements {
            match kept.remove(&(set.clone(), key.clone())) {
                Some(same) if same == data => {}
                other => {
                    if let Some(old) = other {
                        self.remove((set.clone(), key.clone(), old));
                    }
                    self.add((set, key, data));
                }
            }
        }
        kept.into_iter().for_each(|((set, key), data)| self.remove((set, key, data)));
    }

    fn toggle(&mut self, element: Element, was: bool, is: bool) {
        match (was, is) {
            (false, true) => self.add(element),
            (true, false) => self.remove(element),
            _ => {}
        }
    }

    fn add(&mut self, (set, key, data): Element) {
        self.edit.add_elements.entry(set).or_default().insert(key, data);
    }

    fn remove(&mut self, (set, key, data): Element) {
        self.edit.remove_elements.entry(set).or_default().insert(key, data);
    }

    /// `present` are the choices that have chains.
    fn finish(mut self, present: &BTreeMap<Choice, usize>) -> (Edit, Made) {
        let made = std::mem::take(&mut self.made);
        for (choice, more) in &made {
            let frontends = present.get(choice).copied().unwrap_or_default();
            match (frontends, frontends.saturating_add_signed(*more)) {
                (0, 1..) => {
                    self.edit.add_chains.insert(choice.name(), choice.rules());
                    choice.lead().into_iter().for_each(|lead| self.add(lead));
                }
                (1.., 0) => {
                    self.edit.remove_chains.push(choice.name());
                    choice.lead().into_iter().for_each(|lead| self.remove(lead));
                }
                _ => {}
            }
        }
        (self.edit, made)
    }
}
