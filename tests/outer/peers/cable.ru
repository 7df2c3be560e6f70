# ActionCable without Rails. Usage: puma -b tcp://127.0.0.1:0 cable.ru; see speakers.rs. Before it stops, at SIGTERM,
# it says so to its clients, as `ActionCable.server.restart` does.
# Channels: RoomChannel is confirmed, ChatChannel needs the param `room`, TickChannel sends a message each
# second, SecretChannel is rejected. `/cable?token=wrong` is an unauthorized connection.
require "active_support/all"
require "action_cable"

class Connection < ActionCable::Connection::Base
  def connect
    reject_unauthorized_connection if request.params["token"] == "wrong"
  end
end

class RoomChannel < ActionCable::Channel::Base
end

class ChatChannel < ActionCable::Channel::Base
  def subscribed
    reject unless params[:room]
  end
end

class TickChannel < ActionCable::Channel::Base
  periodically every: 1.second do
    transmit({ tick: Time.now.to_i })
  end
end

class SecretChannel < ActionCable::Channel::Base
  def subscribed
    reject
  end
end

config = ActionCable.server.config
config.cable = { "adapter" => "async" }
config.connection_class = -> { Connection }
config.disable_request_forgery_protection = true
config.logger = Logger.new($stderr)

at_exit { ActionCable.server.restart }

map("/cable") { run ActionCable.server }
