//! One transaction: the messages that make one ruleset out of another, in an order the kernel
//! accepts, each with a name for error reports.

use std::collections::BTreeMap;

use super::expression::{encode_value, encode_verdict};
use super::ruleset::concatenated;
use super::{ATTR_TABLE, Chain, Data, DataType, HookType, Ruleset, SUBSYSTEM, Set, Verdict, message, msg};
use crate::netlink::{Error, Message, Socket};

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// An attribute's length has sixteen bits; elements are spread over messages well below that.
const ELEMENT_BYTES_MAX: usize = 32 * 1024;

/// How many elements rules may put into a set.
const DYNAMIC_ELEMENTS_MAX: u32 = 65_536;

/// `NFT_SET_*` flags.
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;

/// `NFT_DATA_VERDICT`, and the length of a verdict's data.
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
const VERDICT_LEN: u32 = 16;

/// `NF_ACCEPT`.
const POLICY_ACCEPT: u32 = 1;

/// Changes that take effect together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    messages: Vec<Message>,
    names: Vec<String>,
}

/// A change of some of a table's content, for those who know what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// New chains, which only rules and maps lead to.
    pub add_chains: BTreeMap<String, Vec<super::Rule>>,
    pub remove_elements: Elements,
    /// An element may be removed and added with other data.
    pub add_elements: Elements,
    /// Chains that nothing leads to any more.
    pub remove_chains: Vec<String>,
}

/// Elements by set and key.
pub type Elements = BTreeMap<String, BTreeMap<Vec<u8>, Data>>;

impl Edit {
    pub fn is_empty(&self) -> bool {
        *self == Edit::default()
    }
}

impl Batch {
    /// Replaces whatever the table holds.
    pub fn replace(desired: &Ruleset) -> Batch {
        let mut batch = Batch::default();
        batch.add_table(&desired.table);
        batch.delete_table(&desired.table);
        batch.add_table(&desired.table);
        batch.change(&Ruleset::new(desired.table.clone()), desired);
        batch
    }

    /// Turns `current` into `desired`. A set whose type changed cannot be altered in place: then
    /// the table is replaced.
    pub fn between(current: &Ruleset, desired: &Ruleset) -> Batch {
        let in_place = current.table == desired.table
            && desired
                .sets
                .iter()
                .all(|(name, set)| current.sets.get(name).is_none_or(|old| old.same_shape(set)))
            && desired
                .chains
                .iter()
                .all(|(name, chain)| current.chains.get(name).is_none_or(|old| old.hook == chain.hook));
        if !in_place {
            return Batch::replace(desired);
        }
        let mut batch = Batch::default();
        batch.change(current, desired);
        batch
    }

    /// Removes the table, which need not exist.
    pub fn remove(table: &str) -> Batch {
        let mut batch = Batch::default();
        batch.add_table(table);
        batch.delete_table(table);
        batch
    }

    /// Adds a change of some of a table's content.
    pub fn edit(&mut self, table: &str, edit: &Edit) {
        for (name, rules) in &edit.add_chains {
            self.add_chain(table, name, &Chain::default());
            rules.iter().for_each(|rule| self.add_rule(table, name, rule));
        }
        for name in &edit.remove_chains {
            self.flush_chain(table, name);
        }
        for (set, elements) in &edit.remove_elements {
            self.elements(msg::DELSETELEM, table, set, elements.iter());
        }
        for (set, elements) in &edit.add_elements {
            self.elements(msg::NEWSETELEM, table, set, elements.iter());
        }
        for name in &edit.remove_chains {
            self.delete_named(msg::DELCHAIN, 3, table, name, "delete chain");
        }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages it takes; elements travel many to a message.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Has the kernel carry it out; an error names the first message refused.
    pub fn commit(self, socket: &mut Socket) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let messages: Vec<Message> =
            [boundary(BATCH_BEGIN)].into_iter().chain(self.messages).chain([boundary(BATCH_END)]).collect();
        let names = self.names;
        socket.transact(&messages, |index| match index.checked_sub(1).and_then(|index| names.get(index)) {
            Some(name) => name.clone(),
            None => "commit nf_tables transaction".to_string(),
        })
    }

    /// What rules name must exist before them, and what they named may go only after them.
    fn change(&mut self, current: &Ruleset, desired: &Ruleset) {
        let table = &desired.table;
        for (name, set) in desired.sets.iter().filter(|(name, _)| !current.sets.contains_key(*name)) {
            self.add_set(table, name, set);
        }
        for (name, chain) in desired.chains.iter().filter(|(name, _)| !current.chains.contains_key(*name)) {
            self.add_chain(table, name, chain);
        }
        for name in current.chains.keys().filter(|name| !desired.chains.contains_key(*name)) {
            self.flush_chain(table, name);
        }
        for (name, chain) in &desired.chains {
            let old = current.chains.get(name).map(|chain| &chain.rules[..]).unwrap_or_default();
            if old != chain.rules {
                if !old.is_empty() {
                    self.flush_chain(table, name);
                }
                chain.rules.iter().for_each(|rule| self.add_rule(table, name, rule));
            }
        }
        self.change_elements(current, desired);
        for name in current.chains.keys().filter(|name| !desired.chains.contains_key(*name)) {
            self.delete_named(msg::DELCHAIN, 3, table, name, "delete chain");
        }
        for name in current.sets.keys().filter(|name| !desired.sets.contains_key(*name)) {
            self.delete_named(msg::DELSET, 2, table, name, "delete set");
        }
    }

    fn change_elements(&mut self, current: &Ruleset, desired: &Ruleset) {
        for (name, set) in &desired.sets {
            let old = current.sets.get(name).map(|set| &set.elements);
            let gone = old.into_iter().flatten().filter(|(key, data)| set.elements.get(*key) != Some(data));
            self.elements(msg::DELSETELEM, &desired.table, name, gone);
            let new =
                set.elements.iter().filter(|(key, data)| old.and_then(|old| old.get(*key)) != Some(data));
            self.elements(msg::NEWSETELEM, &desired.table, name, new);
        }
        for (name, set) in current.sets.iter().filter(|(name, _)| !desired.sets.contains_key(*name)) {
            self.elements(msg::DELSETELEM, &desired.table, name, set.elements.iter());
        }
    }

    fn push(&mut self, message: Message, name: String) {
        self.messages.push(message);
        self.names.push(name);
    }

    fn add_table(&mut self, table: &str) {
        let mut add = message(msg::NEWTABLE, libc::NLM_F_CREATE);
        add.text(ATTR_TABLE, table);
        self.push(add, format!("add table inet {table}"));
    }

    fn delete_table(&mut self, table: &str) {
        let mut delete = message(msg::DELTABLE, 0);
        delete.text(ATTR_TABLE, table);
        self.push(delete, format!("delete table inet {table}"));
    }

    fn add_set(&mut self, table: &str, name: &str, set: &Set) {
        let (key_type, key_len) = concatenated(&set.key);
        let mut flags = if set.data.is_some() { SET_MAP } else { 0 };
        if set.dynamic {
            flags |= SET_TIMEOUT | SET_EVAL;
        }
        let mut add = message(msg::NEWSET, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        add.text(ATTR_TABLE, table).text(2, name).u32_be(3, flags).u32_be(4, key_type).u32_be(5, key_len);
        match &set.data {
            Some(DataType::Verdict) => {
                add.u32_be(6, DATA_TYPE_VERDICT).u32_be(7, VERDICT_LEN);
            }
            Some(DataType::Value(types)) => {
                let (data_type, data_len) = concatenated(types);
                add.u32_be(6, data_type).u32_be(7, data_len);
            }
            None => {}
        }
        if set.dynamic {
            add.nest(9, |description| {
                description.u32_be(1, DYNAMIC_ELEMENTS_MAX);
            });
        }
        add.u32_be(10, self.messages.len() as u32 + 1);
        self.push(add, format!("add set {table} {name}"));
    }

    fn add_chain(&mut self, table: &str, name: &str, chain: &Chain) {
        let mut add = message(msg::NEWCHAIN, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        add.text(ATTR_TABLE, table).text(3, name);
        if let Some(hook) = chain.hook {
            add.nest(4, |nested| {
                nested.u32_be(1, hook.number).u32_be(2, hook.priority as u32);
            });
            let kind = match hook.kind {
                HookType::Nat => "nat",
                HookType::Filter => "filter",
            };
            add.u32_be(5, POLICY_ACCEPT).text(7, kind);
        }
        self.push(add, format!("add chain {table} {name}"));
    }

    fn flush_chain(&mut self, table: &str, name: &str) {
        self.delete_named(msg::DELRULE, 2, table, name, "flush chain");
    }

    fn delete_named(&mut self, kind: u16, attribute: u16, table: &str, name: &str, operation: &str) {
        let mut delete = message(kind, 0);
        delete.text(ATTR_TABLE, table).text(attribute, name);
        self.push(delete, format!("{operation} {table} {name}"));
    }

    fn add_rule(&mut self, table: &str, chain: &str, rule: &super::Rule) {
        let mut add = message(msg::NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND);
        add.text(ATTR_TABLE, table).text(2, chain).nest(4, |list| {
            rule.iter().for_each(|expression| expression.encode(list));
        });
        self.push(add, format!("add rule {table} {chain} {rule:?}"));
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        table: &str,
        set: &str,
        elements: impl Iterator<Item = (&'a Vec<u8>, &'a Data)>,
    ) {
        let elements: Vec<_> = elements.collect();
        let widest = elements.iter().map(|(key, data)| element_len(key, data)).max().unwrap_or(1);
        for part in elements.chunks((ELEMENT_BYTES_MAX / widest).max(1)) {
            let flags = if kind == msg::NEWSETELEM { libc::NLM_F_CREATE } else { 0 };
            let mut change = message(kind, flags);
            change.text(ATTR_TABLE, table).text(2, set).nest(3, |list| {
                part.iter().for_each(|(key, data)| encode_element(key, data, list));
            });
            let verb = if kind == msg::NEWSETELEM { "add" } else { "delete" };
            self.push(change, format!("{verb} {} elements of {table} {set}", part.len()));
        }
    }
}

/// An upper bound of the bytes an element takes in a message.
fn element_len(key: &[u8], data: &Data) -> usize {
    const OVERHEAD: usize = 48;
    let data_len = match data {
        Data::None => 0,
        Data::Value(value) => value.len(),
        Data::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => chain.len(),
        Data::Verdict(_) => 0,
    };
    key.len() + data_len + OVERHEAD
}

fn encode_element(key: &[u8], data: &Data, list: &mut Message) {
    list.nest(1, |element| {
        encode_value(1, key, element);
        match data {
            Data::None => {}
            Data::Value(value) => encode_value(2, value, element),
            Data::Verdict(verdict) => encode_verdict(2, verdict, element),
        }
    });
}

/// Begin or end of a transaction; the resource id names the subsystem.
fn boundary(kind: u16) -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let mut message = Message::new(kind, 0);
    message.header(&[libc::AF_UNSPEC as u8, 0, high, low]);
    message
}
