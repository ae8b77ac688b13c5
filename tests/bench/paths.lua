-- GETs the paths of a file, at random: wrk -s paths.lua URL -- FILE
local counter = 0

function setup(thread)
  thread:set("seed", counter)
  counter = counter + 1
end

function init(args)
  paths = {}
  for path in io.lines(args[1]) do
    table.insert(paths, path)
  end
  math.randomseed(seed + 1)
end

function request()
  return wrk.format("GET", paths[math.random(#paths)])
end

function done(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  print(string.format("RESULT %f %d 0", summary.requests / (summary.duration / 1e6), failed))
end
