-- Pushes small images, one after the other on each connection:
--   wrk -t16 -c16 -s images.lua URL -- DIRECTORY REPOSITORY TAG
-- to bench/REPOSITORY-<thread>:TAG<number>. DIRECTORY/<thread> holds five lines an image: config, its digest, layer,
-- its digest, manifest.
local threads = {}

function setup(thread)
  thread:set("id", #threads)
  table.insert(threads, thread)
end

function init(args)
  lines = io.lines(args[1] .. "/" .. id)
  repository = "/v2/bench/" .. args[2] .. "-" .. id
  tag = args[3]
  step, completed, failed, ended = 0, 0, 0, 0
end

-- The headers of every request (the credential) and one more.
local function headers_with(name, value)
  local headers = { [name] = value }
  for name, value in pairs(wrk.headers) do headers[name] = value end
  return headers
end

local function put_blob(location, digest, body)
  local path = location:gsub("^%a+://[^/]+", "")
  local separator = path:find("?", 1, true) and "&" or "?"
  return wrk.format("PUT", path .. separator .. "digest=" .. digest,
    headers_with("Content-Type", "application/octet-stream"), body)
end

function request()
  if step == 0 then
    config = lines()
    if not config then
      ended = 1
      wrk.thread:stop()
      return wrk.format("GET", "/v2/")
    end
    config_digest, layer, layer_digest, manifest = lines(), lines(), lines(), lines()
  end
  if step == 0 or step == 2 then
    return wrk.format("POST", repository .. "/blobs/uploads/", headers_with("Content-Length", "0"))
  elseif step == 1 then
    return put_blob(location, config_digest, config)
  elseif step == 3 then
    return put_blob(location, layer_digest, layer)
  end
  return wrk.format("PUT", repository .. "/manifests/" .. tag .. completed,
    headers_with("Content-Type", "application/vnd.oci.image.manifest.v1+json"), manifest)
end

function response(status, headers, body)
  if ended == 1 then return end
  if status >= 300 then
    failed = failed + 1
    if failed == 1 then print("step " .. step .. ": " .. status .. " " .. body) end
    step = 0
    return
  end
  location = headers["location"] or headers["Location"]
  step = step + 1
  if step == 5 then
    step, completed = 0, completed + 1
  end
end

function done(summary, latency, requests)
  local completed, failed, ended = 0, 0, 0
  for _, thread in ipairs(threads) do
    completed = completed + thread:get("completed")
    failed = failed + thread:get("failed")
    ended = ended + thread:get("ended")
  end
  print(string.format("RESULT %f %d %d", completed / (summary.duration / 1e6), failed, ended))
end
