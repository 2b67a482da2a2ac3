//! The page for engineers who connect a source, run as it stands.

use crate::World;
use crate::api::run_page;

pub fn the_page_for_sources_runs_as_it_stands(world: &World) {
    // Of its own: the page stops the city and starts it again.
    let city = world.place().city("source");
    let said = run_page(world, &city, "connect-your-source.md", &[]);
    assert!(said.contains("dataset  ds:grid/readings@1"), "what was applied is named: {said}");
    city.run(&["demo", "stop", "--quiet"]).done();
}
