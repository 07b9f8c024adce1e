#pragma once
// Graphs, and recording into them: the work of a capturing stream, and of streams that join it by
// waiting for its events, becomes nodes that know which nodes they come after. Rules and errors as
// in the "CUDA C++ Programming Guide", section "Creating a graph using stream capture".

#include <memory>
#include <vector>

#include "simt/codes.h"
#include "simt/queue.h"

namespace cuvae::simt {

struct Node {
  std::shared_ptr<const Work> work;
  std::vector<int> after;
  bool programmatic = false;
};
struct WorkGraph {
  std::vector<Node> nodes;
};
struct ExecutableGraph {
  WorkGraph graph;
  OperationPtr last;  // of its latest launch; the next one comes after it
};

struct StreamState;

struct CaptureState {
  WorkGraph graph;
  StreamState* origin = nullptr;
  std::vector<StreamState*> streams;
  bool open = true;
  bool valid = true;
};
using CapturePtr = std::shared_ptr<CaptureState>;

struct StreamState {
  OperationPtr last;
  CapturePtr capture;
  std::vector<int> frontier;  // nodes that the next one comes after
};

struct EventState {
  bool timing = false;
  OperationPtr last;
  std::shared_ptr<EventTime> time;
  CapturePtr capture;  // where it was last recorded in a capturing stream
  std::vector<int> frontier;
};

void begin_capture(StreamState& stream);
// Makes a node of it.
void record(StreamState& stream, std::shared_ptr<const Work> work, bool programmatic);
void record_event(EventState& event, StreamState& stream);
[[nodiscard]] int wait_captured(StreamState& stream, const EventState& event);
// Ends the capture whatever comes out; the graph is set with code 0 only.
[[nodiscard]] int end_capture(StreamState& stream, WorkGraph& graph);
void leave_capture(StreamState& stream);  // a stream that is destroyed

}  // namespace cuvae::simt
