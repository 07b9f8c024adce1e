#include "simt/capture.h"

#include <algorithm>

namespace cuvae::simt {
namespace {

void join(StreamState& stream, const CapturePtr& capture) {
  stream.capture = capture;
  capture->streams.push_back(&stream);
}

void merge(std::vector<int>& nodes, const std::vector<int>& more) {
  nodes.insert(nodes.end(), more.begin(), more.end());
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
}

// Whether each of `nodes` is one of `ends` or comes before one.
bool all_before(const WorkGraph& graph, const std::vector<int>& nodes,
                const std::vector<int>& ends) {
  std::vector<bool> before(graph.nodes.size());
  for (const int end : ends) before[static_cast<std::size_t>(end)] = true;
  for (std::size_t i = graph.nodes.size(); i-- > 0;) {
    if (!before[i]) continue;
    for (const int earlier : graph.nodes[i].after) before[static_cast<std::size_t>(earlier)] = true;
  }
  return std::all_of(nodes.begin(), nodes.end(),
                     [&](int node) { return before[static_cast<std::size_t>(node)]; });
}

}  // namespace

void begin_capture(StreamState& stream) {
  auto capture = std::make_shared<CaptureState>();
  capture->origin = &stream;
  join(stream, capture);
  stream.frontier.clear();
}

void record(StreamState& stream, std::shared_ptr<const Work> work, bool programmatic) {
  std::vector<Node>& nodes = stream.capture->graph.nodes;
  const auto number = static_cast<int>(nodes.size());
  // Only a kernel that follows a kernel directly may begin early.
  const bool after_kernel =
      stream.frontier.size() == 1 &&
      nodes[static_cast<std::size_t>(stream.frontier[0])].work->kind == WorkKind::kernel;
  nodes.push_back({std::move(work), std::move(stream.frontier), programmatic && after_kernel});
  stream.frontier = {number};
}

void record_event(EventState& event, StreamState& stream) {
  event.capture = stream.capture;
  event.frontier = stream.frontier;
  event.last = nullptr;
  event.time = nullptr;
}

int wait_captured(StreamState& stream, const EventState& event) {
  if (!event.capture->open) return captured_event;
  if (!stream.capture) {
    join(stream, event.capture);
    stream.frontier = event.frontier;
    return success;
  }
  if (stream.capture != event.capture) {
    stream.capture->valid = false;
    return capture_isolation;
  }
  merge(stream.frontier, event.frontier);
  return success;
}

int end_capture(StreamState& stream, WorkGraph& graph) {
  if (!stream.capture) return illegal_state;
  const CapturePtr capture = stream.capture;
  int code = success;
  if (capture->origin != &stream) {
    // The capture stays open, for its own stream to end.
    capture->valid = false;
    return capture_unmatched;
  }
  if (!capture->valid) {
    code = capture_invalidated;
  } else {
    for (const StreamState* other : capture->streams)
      if (!all_before(capture->graph, other->frontier, stream.frontier)) code = capture_unjoined;
  }
  capture->open = false;
  for (StreamState* other : capture->streams) {
    other->capture = nullptr;
    other->frontier.clear();
  }
  capture->streams.clear();
  if (code == success) graph = std::move(capture->graph);
  return code;
}

void leave_capture(StreamState& stream) {
  if (!stream.capture) return;
  const CapturePtr capture = std::exchange(stream.capture, nullptr);
  capture->valid = false;
  std::erase(capture->streams, &stream);
  if (capture->origin != &stream) return;
  capture->open = false;
  for (StreamState* other : capture->streams) other->capture = nullptr;
}

}  // namespace cuvae::simt
