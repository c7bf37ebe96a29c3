//! The Markdown file of results: a section for each command, replaced when the command runs again.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report::{Report, Row, Versus, number};

const HEADING: &str = "## ";

/// Puts the report into the file as the section of the command that this process runs.
pub fn put(file: &Path, report: &Report) -> Result<()> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let title = title(report.benchmark, &arguments);
    let section = format!("On {}.\n\n{}", machine()?, table(report));
    fs::write(file, with_section(&text, &title, &section))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The command without what differs between machines: files and process IDs.
fn title(benchmark: &str, arguments: &[String]) -> String {
    let mut kept = Vec::new();
    let mut arguments = arguments.iter().skip_while(|argument| *argument != benchmark).skip(1);
    while let Some(argument) = arguments.next() {
        let flag = argument.split('=').next().unwrap_or_default();
        let local = ["--write", "--kubeconfig", "--context", "--upstream", "--data-dir", "--cox", "--image"]
            .contains(&flag)
            || flag.ends_with("pid");
        match local {
            true if flag == argument => drop(arguments.next()),
            true => {}
            false => kept.push(argument.as_str()),
        }
    }
    [benchmark].into_iter().chain(kept).collect::<Vec<_>>().join(" ")
}

/// What the figures were measured on.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let count = std::thread::available_parallelism()?;
    Ok(format!("{count} CPUs ({model}), Linux {}", kernel.trim()))
}

fn table(report: &Report) -> String {
    let compared = report.rows.iter().any(|row| row.versus.is_some());
    let mut text = match compared {
        true => {
            "| figure | ours | upstream | times better | to reach |\n|---|---:|---:|---:|---:|\n".to_owned()
        }
        false => "| figure | value |\n|---|---:|\n".to_owned(),
    };
    for Row { name, value, unit, versus } in &report.rows {
        text += &format!("| {name} | {} {unit} |", number(*value));
        if let Some(Versus { value, ratio, reach }) = versus {
            let reach = reach.map(number).unwrap_or_default();
            text += &format!(" {} {unit} | {ratio:.1} | {reach} |", number(*value));
        } else if compared {
            text += " | | |";
        }
        text += "\n";
    }
    text
}

/// The text with the section of this title replaced, or added at its end.
fn with_section(text: &str, title: &str, section: &str) -> String {
    let heading = format!("{HEADING}{title}\n");
    let section = format!("{heading}\n{}\n", section.trim_end());
    let start = text.find(&heading).filter(|at| *at == 0 || text[..*at].ends_with('\n'));
    match start {
        None if text.is_empty() => section,
        None => format!("{}\n\n{section}", text.trim_end()),
        Some(start) => {
            let after = start + heading.len();
            let end = text[after..].find(&format!("\n{HEADING}")).map(|at| after + at + 1);
            let rest = end.map_or(String::new(), |end| format!("\n{}", &text[end..]));
            format!("{}{section}{rest}", &text[..start])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_where_it_stands() {
        let text = with_section("# Results\n", "a", "one");
        let text = with_section(&text, "b", "two");
        assert_eq!(text, "# Results\n\n## a\n\none\n\n## b\n\ntwo\n");
        assert_eq!(with_section(&text, "a", "three"), "# Results\n\n## a\n\nthree\n\n## b\n\ntwo\n");
        assert_eq!(with_section(&text, "b", "three"), "# Results\n\n## a\n\none\n\n## b\n\nthree\n");
    }

    #[test]
    fn a_title_names_no_file_and_no_process() {
        let arguments = "--server-pid 7 list-pods --objects 5 --write x --kubeconfig=k --form table";
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        assert_eq!(title("list-pods", &arguments), "list-pods --objects 5 --form table");
    }

    #[test]
    fn compared_figures_have_columns_of_their_own() {
        let mut report = Report::new("compare").row("get", 10.0, "us").row("pods", 3.0, "");
        report.rows[0].versus = Some(Versus { value: 100.0, ratio: 10.0, reach: Some(5.0) });
        let text = table(&report);
        assert!(text.ends_with("| get | 10 us | 100 us | 10.0 | 5 |\n| pods | 3  | | | |\n"), "{text}");
    }
}
